// Asks a ClickHouse HTTP interface as Grafana's data source does: clickhouse-go behind database/sql, HTTP, gzip.
//
//	asking http://user:password@127.0.0.1:8123    statements as a JSON array on stdin; rows as a JSON array of arrays of texts on stdout
package main

import (
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"time"

	"github.com/ClickHouse/clickhouse-go/v2"
)

func main() {
	to, err := url.Parse(os.Args[1])
	must(err)
	password, _ := to.User.Password()
	db := clickhouse.OpenDB(&clickhouse.Options{
		Addr:        []string{to.Host},
		Auth:        clickhouse.Auth{Database: "telemetry", Username: to.User.Username(), Password: password},
		Protocol:    clickhouse.HTTP,
		Compression: &clickhouse.Compression{Method: clickhouse.CompressionGZIP},
		DialTimeout: 10 * time.Second,
		ReadTimeout: 60 * time.Second,
		Settings:    clickhouse.Settings{"limit": "100000"},
	})
	must(db.Ping())
	var statements []string
	must(json.NewDecoder(os.Stdin).Decode(&statements))
	answers := [][][]string{}
	for _, statement := range statements {
		rows, err := db.Query(statement)
		must(err)
		columns, err := rows.Columns()
		must(err)
		answer := [][]string{}
		for rows.Next() {
			values, places := make([]any, len(columns)), make([]any, len(columns))
			for i := range values {
				places[i] = &values[i]
			}
			must(rows.Scan(places...))
			texts := make([]string, len(columns))
			for i, value := range values {
				if when, is := value.(time.Time); is {
					value = when.UTC().Format(time.RFC3339Nano)
				}
				texts[i] = fmt.Sprint(value)
			}
			answer = append(answer, texts)
		}
		must(rows.Err())
		answers = append(answers, answer)
	}
	must(json.NewEncoder(os.Stdout).Encode(answers))
}

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}
