"""Marks of a secret or of a person in text, and what stands in their place.

The engine looks for all of them at once (Vectorscan, `multiMatchAllIndices`) and then replaces with those alone that were found
(RE2), in this order: the specific ones first. So a text without any costs a fraction of a microsecond, and no pattern is compiled for
a block of events that isn't needed. What it looks for (`look`) may be coarser than the pattern, which makes it quick to prepare; it is
found in every text that the pattern matches, which a property test holds. Both are written in what RE2, Vectorscan and Python read
alike: no look-around, no back-reference, no `\\w` (it differs on letters outside of ASCII).

Where a word has to begin, what may stand before it is matched too and put back (`\\1`): the start, anything but a letter or a digit, the
escapes of JSON (`\\n`) and of URLs (`%20`).
"""

# ruff: noqa: E501 - a pattern is one line
from __future__ import annotations

import re
from dataclasses import dataclass

from sp_telemetry.privacy.keys import KEYS

BEFORE = r"(^|[^A-Za-z0-9]|\\[nrtbf]|%[0-9A-Fa-f]{2})"
#: what stands right behind the closing quote goes with it, so that a text once redacted stays as it is
_VALUE = r"""(?:\\*"(?:[^"\\]|\\[^"])+\\?"?[^\s"',;&|)}\]\\]*|\\*'(?:[^'\\]|\\[^'])+\\?'?[^\s"',;&|)}\]\\]*|[^\s"',;&|)}\]\\]{3,})"""
_SCHEME = r"(?:(?:bearer|basic|token|digest|negotiate)(?:\s|%20|\+)+)?"
#: What stands before the path of a home, which begins there; within a path in the repository (`feature/users/x`) none does. An option's
#: letter may, an escape or a colour. And what a home may lie in: a disk, a folder of the root, a host.
_BEFORE_PATH = r"(^|[^A-Za-z0-9._~\\-]|\.\.|(?:^|[\s\"'=(,])-[A-Za-z]{1,8}|\\[nrtbf]|%[0-9A-Fa-f]{2}|\[[0-9;]{1,10}m)"
_ROOT = r"(/Volumes/[^/\r\n]{1,40}|(?:^|[^A-Za-z0-9._~/\\-])/?(?:\\*/[A-Za-z0-9._+@-]+)+?|:\\*/\\*/[^\s\"'<>~]*?)"
_IS = r"""(\\*["'`]?[ \t]*(?:=>|:=|[=:]|%3[dDaA])[ \t]*)"""


@dataclass(frozen=True)
class Pattern:
    """`regex`, and `text` in its place, where `\\1`, `\\2` are parts that stay.

    `like` and `unlike`: what must and what must not match, as documentation and as a test. `source`: where the format is published.
    `check`: a test beyond the regex that the engine makes of each match ('luhn'). `look`: '' where the regex is its own.
    """

    name: str
    regex: str
    replacement: str = ""
    like: tuple[str, ...] = ()
    unlike: tuple[str, ...] = ()
    source: str = ""
    check: str = ""
    look: str = ""

    @property
    def text(self) -> str:
        return self.replacement or f"<{self.name}>"


def _slug(provider: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", provider.lower()).strip("-") + "-key"


def _coarse(regex: str) -> str:
    """`regex` with each long repetition made one of at least six: found wherever `regex` is, and quick to prepare."""
    return re.sub(r"\{([0-9]+)(,[0-9]*)?\}", lambda found: "{6,}" if int(found[1]) > 6 else found[0], regex)


_KEY_PATTERNS = tuple(
    Pattern(_slug(key.provider), f"{BEFORE}(?:{key.regex})", rf"\1<{_slug(key.provider)}>", source=key.source, look=_coarse(key.regex))
    if key.bounded
    else Pattern(_slug(key.provider), key.regex, source=key.source, look=_coarse(key.regex))
    for key in KEYS
)

#: Applied in this order to every text that is kept.
PATTERNS: tuple[Pattern, ...] = (
    Pattern(
        "private-key",
        r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----(?:[^-]|-[^-])*(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)?"
        r"|PuTTY-User-Key-File-[0-9](?:.|\n)*",
        like=("-----BEGIN RSA PRIVATE KEY----- MIIEpAIBAAKCAQEA7 -----END RSA PRIVATE KEY-----", r"-----BEGIN PRIVATE KEY-----\nMIIE"),
        unlike=("-----BEGIN CERTIFICATE-----", "-----BEGIN PUBLIC KEY-----", "PRIVATE KEY"),
        look=r"PRIVATE KEY|PuTTY-User-Key",
        source="RFC 7468, RFC 4880, PuTTY's key format",
    ),
    Pattern(
        "url-password",
        r"""([a-zA-Z][a-zA-Z0-9+.-]{0,30}(?:://|%3[aA]%2[fF]%2[fF]|:\\?/\\?/))(?:[^\s/@:"'<>\\]*:[^\s"'<>\\]*|[^\s/@:"'<>\\]+)(?:@|%40)""",
        r"\1<credentials>@",
        like=("https://deploy:hunter2@example.org/x", "postgres://u:p@ss@db/x", "https://sometoken@github.com/a/b", "redis://:pw@h"),
        unlike=("https://example.org/a@b", "http://localhost:4318/v1/logs", "git@github.com:a/b.git"),
        look=r"(?i)(?:/|%2f)\\*(?:/|%2f)[^\s]*(?:@|%40)",
        source="RFC 3986, userinfo",
    ),
    *_KEY_PATTERNS,
    Pattern(
        "jwt",
        r"eyJ[A-Za-z0-9_-]{6,}\.(?:eyJ)?[A-Za-z0-9_-]{6,}(?:\.[A-Za-z0-9_-]*){1,3}",
        like=("eyJhbGciOiJI.eyJzdWIiOiIx.c2lnbmF0dXJl",),
        unlike=("eyJhbGci", "key.value.other"),
        look=r"eyJ[A-Za-z0-9_-]{6}",
        source="RFC 7519, RFC 7516",
    ),
    Pattern(
        "paseto",
        r"v[1-4]\.(?:local|public)\.[A-Za-z0-9_-]{30,}(?:\.[A-Za-z0-9_-]*)?",
        like=("v4.local." + "Xk9_" * 10,),
        unlike=("v1.local.host", "v2.public.api"),
        look=r"v[1-4]\.(?:local|public)\.[A-Za-z0-9_-]{6}",
        source="paseto.io, version 1 to 4",
    ),
    Pattern(
        "cookie",
        rf"(?i){BEFORE}((?:set-)?cookie2?\\*[\"']?: ?\\*[\"']?)[^\"'\r\n\\]{{3,}}",
        r"\1\2<secret>",
        like=("Cookie: session=abcdef; theme=dark", '"cookie":"sid=12345"'),
        unlike=("a cookie is small", "cookies: 3"),
        look=r"(?i)cookie2?\\*[\"\']?:",
        source="RFC 6265",
    ),
    Pattern(
        "assigned-secret",
        rf"(?i)((?:pass[_-]?(?:word|phrase|code|key)|passwd|passwort|kennwort|pwd|secret)[a-z0-9_-]*|[_.]pass|(?:account|auth|access|shared[_-]?access|api|private|signing|"
        rf"encryption|subscription|master|openai|app|deploy)[_-]?key(?:[_-]?id)?|client[_-]key[_-]data|(?:auth|access|refresh|id|session|csrf|api|bot|user|service|x)?[_-]?token|"
        rf"authorization|credentials?|client[_-]?secret|x-amz-(?:signature|credential|security-token)|sig(?:nature)?|otp|pin[_-]?code)"
        rf"{_IS}{_SCHEME}{_VALUE}",
        r"\1\2<secret>",
        like=(
            "password=correcthorse", "PGPASSWORD=hunter2 psql", '"client_secret": "a b c"', "Authorization: Bearer abcdefgh", "?token=abcdefgh&x",
            r"{\"api_key\":\"abc def\"}", "AccountKey=abcd==;EndpointSuffix", "password%3Dhunter2", "Pwd=hunter2;", "GITHUB_TOKEN: abcdefgh",
            "aws_secret_access_key = abc/def+ghi", "DB_PASS=hunter2", "smtp.pass: hunter2", "X-Auth-Key: abcdef", "client-key-data: LS0tLS1CRUdJTg==", "AZURE_OPENAI_KEY=0123abcd", "APP_KEY=base64:abcd",
        ),
        unlike=("max_tokens=4096", "tokens: 210000", "input_tokens=12", "Unexpected token < in JSON", "the secret of good prose", "token_count=5"),
        look=r"""(?i)(?:pass|kennwort|pwd|secret|key|token|authorization|credential|sig|otp|code)[a-z0-9_-]*\\*["'`]?[ \t]*(?:[=:]|%3[da])""",
        source="names that configuration files, headers and environments use",
    ),
    Pattern(
        "bearer",
        rf"(?i){BEFORE}(bearer(?:\s|%20|\+)+)[A-Za-z0-9._~+/=-]{{8,}}",
        r"\1\2<secret>",
        like=("Bearer q7w8e9r0t1y2u3i4", "sent with bearer%20abcdefgh"),
        unlike=("the bearer of news", "bearer token"),
        look=r"(?i)bearer",
        source="RFC 6750",
    ),
    Pattern(
        "option-secret",
        rf"(?i)((?:^|[\s\"'`=])--?(?:[a-z0-9]+[_-])*(?:(?:store|key)?pass(?:word|wd|phrase)?|pwd|secret|token|(?:api|access|secret|auth|private)[_-]?key)(?:[ \t]+|=))"
        rf"{_VALUE}",
        r"\1<secret>",
        like=("login --password hunter2", "x --api-key=abcdef", 'y --token "a b"', "z --openai_api_key abcdef", "keytool -storepass hunter2", "x --pass hunter2"),
        unlike=("--password-stdin", "--max-tokens 5", "--pass-with-no-tests yes", "--by-passing on"),
        look=r"(?i)-[a-z0-9_-]*(?:pass|pwd|secret|token|key)[a-z]*[ \t=]",
        source="command lines",
    ),
    Pattern(
        "option-user",
        r"""((?:curl|wget|http|https|xh)[ \t](?:[^|;&\n]*[ \t])?(?:-u|--user|--proxy-user|-a|--auth)[ \t=]*)\\*["']?[^\s:"'\\]+:[^\s"'\\]+""",
        r"\1<credentials>",
        like=("curl -s -u grace:hunter2 https://x", "http --auth a:bcd x"),
        unlike=("curl -s https://example.org:80/x",),
        look=r"[ \t](?:-u|--user|--proxy-user|-a|--auth)[ \t=]*[^ \t]+:",
        source="curl(1), HTTPie",
    ),
    Pattern(
        "option-p",
        r"""((?:mysql|mysqldump|mysqladmin|mariadb|sshpass|mongo|mongosh|psql|redis-cli|ldapsearch)[ \t](?:[^|;&\n]*[ \t])?-[pwa][ \t]?"""
        r"""|(?:docker|podman|helm|az|oc|skopeo)[ \t](?:[^|;&\n]*[ \t])?login[ \t](?:[^|;&\n]*[ \t])?-p[ \t]?|zip[ \t](?:[^|;&\n]*[ \t])?-P[ \t]?"""
        r"""|7za?[ \t](?:[^|;&\n]*[ \t])?-p|-pass(?:in|out)?[ \t]+pass:)(?:\\*"[^"]+"[^\s]*|\\*'[^']+'[^\s]*|[^\s"'-][^\s]*)""",
        r"\1<secret>",
        like=(
            "mysql -u root -phunter2 book", "sshpass -p hunter2 ssh x", "redis-cli -a hunter2", "mysql -p'hunter 2' book", "7z x -phunter2 a.7z",
            "docker login -u ada -p hunter2 example.org", "openssl rsa -passin pass:hunter2", "zip -P hunter2 a.zip b",
        ),
        unlike=("mkdir -p a/b", "cp -p a b", "docker run -p 8080:80 x", "docker login --password-stdin", "unzip -p a.zip"),
        look=r"(?:mysql|mysqldump|mysqladmin|mariadb|sshpass|mongo|mongosh|psql|redis-cli|ldapsearch|login|zip|7za?)[ \t]|-pass(?:in|out)?[ \t]+pass:",
        source="mysql(1), sshpass(1), redis-cli, docker-login(1), openssl-passphrase-options(1), zip(1), 7z(1)",
    ),
    Pattern(
        "sql-password",
        r"""(?i)((?:identified[ \t]+(?:with[ \t]+[a-z0-9_]+[ \t]+)?by|password)[ \t]+)(?:\\*'[^']+'|\\*"[^"]+")""",
        r"\1<secret>",
        like=("CREATE USER ada IDENTIFIED WITH sha256_password BY 'hunter2'", "ALTER ROLE ada PASSWORD 'hunter2'"),
        unlike=("identified by name", "the password is long"),
        look=r"(?i)(?:by|password)[ \t]+\\*[\"']",
        source="CREATE USER of PostgreSQL, MySQL, ClickHouse",
    ),
    Pattern(
        "element-secret",
        r"(?i)(<[a-z0-9._:-]*(?:pass(?:word|wd|phrase)|pwd|secret|token|api[_-]?key)>)[^<]+(</)",
        r"\1<secret>\2",
        like=("<password>hunter2</password>", "<ns:clientSecret>abc</ns:clientSecret>"),
        unlike=("<password>", "<password></password>", "password=<secret>; more"),
        look=r"(?i)(?:pass(?:word|wd|phrase)|pwd|secret|token|key)>[^<]+</",
        source="XML: settings of Maven, web.config",
    ),
    Pattern(
        "netrc",
        r"((?:machine\s+[^\s]+|default)\s+login\s+[^\s]+\s+password\s+)[^\s]+",
        r"\1<secret>",
        like=("machine example.org login grace password hunter2",),
        unlike=("a login and password are asked for", "machine login password"),
        look=r"login\s+[^\s]+\s+password\s",
        source="netrc(5)",
    ),
    Pattern(
        "email",
        "[A-Za-z0-9._%+\u00a1-\ufffd-]+(?:@|%40)(?:[A-Za-z0-9\u00a1-\ufffd-]+[.])+[A-Za-z\u00a1-\ufffd]{2,}",
        like=("grace.hopper@example.org", "grace%40example.co.uk", "jürgen@exämple.de"),
        unlike=("checkout@v4", "left-pad@1.3.0", "@scope/name", "plugin@marketplace"),
        look=r"@|%40",
        source="RFC 5321, RFC 6531",
    ),
    Pattern(
        "home",
        rf"""(?i)(?:{_BEFORE_PATH}(?:[a-z]:|/mnt/[a-z]|/cygdrive/[a-z]|/[a-z])?|{_ROOT})\\*/(?:(?:var|usr|export)/)?(?:home|users)\\*/[^/\\\s"'<>:;,()\[\]{{}}|&]+"""
        r"""|(?:[a-zA-Z]:|\\\\+[^\\\s"'<>|]+)\\+(?:users|documents and settings)\\+(?:[^\\/:*?"'<>|\r\n]{1,40}(\\)|[^\\/:*?"'<>|\s]+)"""
        r"""|(?:[a-z]%3a)?%(?:2f|5c)(?:home|users)%(?:2f|5c)[^%\s"'&/<>]+"""
        r"""|(^|[\s"'/\\=:(])(?:[a-z]-|-mnt-[a-z]|-var)?-(?:home|users)-[a-z0-9_-]+"""
        r"""|(^|[\s"'=:(,])/root($|[/\s"',:;)])""",
        r"\1\2\4\5~\3\6",
        like=(
            "/home/gracehopper/book", "/Users/grace/x", r"C:\Users\Grace Hopper\book", r"C:\\Users\\grace\\x", "C:/Users/grace/x", "%2Fhome%2Fgrace%2Fx",
            "/mnt/c/Users/grace", "C%3A%5CUsers%5Cgrace", "/" "root/book", ".claude/projects/-home-grace-book/x", "/var/home/grace", r"\/home\/grace",
            "gcc -I/home/grace/include", "/data/home/grace/x", "file:///home/grace/x", "sftp://host/home/grace", "../../home/grace", r"said:\n/home/grace",
            "\x1b[31m/Users/grace", "/Volumes/Old Disk/Users/grace", "grace@host:/home/grace", "PATH=/bin:/home/grace/bin",
            ".claude/projects/C--Users-grace-book", "-mnt-c-Users-grace-book", r"\\\\files\\Users\\grace\\x",
        ),
        unlike=(
            "/opt/homebrew/bin", "home/garden", "the /users page", "/usr/lib", "book/05-part", "work-home-balance", "feature/home/redesign",
            "fix/users/login-form", "src/users/controller.ts", "./src/home/index.html", "docs\\/users\\/guide.md",
        ),
        look=r"(?i)home|users|documents and settings|/root",
        source="hier(7), Windows known folders, Claude Code's project directories",
    ),
    Pattern(
        "iban",
        rf"{BEFORE}(?:AD|AE|AL|AT|AZ|BA|BE|BG|BH|BR|BY|CH|CR|CY|CZ|DE|DK|DO|EE|EG|ES|FI|FO|FR|GB|GE|GI|GL|GR|GT|HR|HU|IE|IL|IQ|IS|IT|JO|KW|KZ|LB|LC|"
        r"LI|LT|LU|LV|LY|MC|MD|ME|MK|MR|MT|MU|NL|NO|PK|PL|PS|PT|QA|RO|RS|SA|SC|SE|SI|SK|SM|ST|SV|TL|TN|TR|UA|VA|VG|XK)"
        r"[0-9]{2}(?:(?:[ -]?[A-Z0-9]{4}){3,7}(?:[ -]?[A-Z0-9]{1,3})?|(?:[ -]?[A-Z0-9]{4}){2}[ -]?[A-Z0-9]{3})",
        r"\1<iban>",
        like=("DE89370400440532013000", "GB82 WEST 1234 5698 7654 32", "NL91 ABNA 0417 1643 00", "NO93 8601 1117 947"),
        unlike=("DE-2026", "FR12", "SE4 is a region", "BUILD2026ABCD1234", "CH33-TEST-CASE", "feature/DE12-PROJ-1234", "ES2015MODULES"),
        look=r"[A-Z]{2}[0-9]{2}[ -]?[A-Z0-9]{4}",
        source="ISO 13616, the registry's list of countries; the shortest has 15 signs",
    ),
    Pattern(
        "card",
        r"(?:^|[^0-9A-Za-z.])((?:4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2(?:22[1-9]|2[3-9][0-9]|[3-6][0-9]{2}|7[01][0-9]|720)[0-9]{12}|3[47][0-9]{13}"
        r"|3(?:0[0-59]|[689][0-9])[0-9]{11}|35[0-9]{14}|6(?:011|5[0-9]{2}|4[4-9][0-9]|2[0-9]{2})[0-9]{12,15}"
        r"|[2-6][0-9]{3}(?:[ -][0-9]{4}){3}(?:[ -][0-9]{1,3})?|3[47][0-9]{2}[ -][0-9]{6}[ -][0-9]{5}|3[0689][0-9]{2}[ -][0-9]{6}[ -][0-9]{4}))\b",
        like=("4111 1111 1111 1111", "378282246310005", "5555-5555-5555-4444"),
        unlike=("1790000000000000000", "4111", "12-34", "46685a62-6622-4043-9439-15ac28b74e51"),
        look=r"[2-6](?:[ -]?[0-9]){12}",
        source="ISO/IEC 7812; only numbers whose check digit is right (Luhn) are replaced",
        check="luhn",
    ),
    Pattern(
        "phone",
        r"(^|[^0-9A-Za-z_.+-])(?:(?:\+[1-9][0-9]{0,2}|00[1-9][0-9]{0,2}[ ./-])(?:[ ./-]?\(?[0-9]{1,5}\)?){2,6}|00[1-9][0-9]{9,13}|\(0?[0-9]{2,5}\)[ ./-]?[0-9]{3,4}[ ./-]?[0-9]{3,5}"
        r"|[2-9][0-9]{2}[.-][2-9][0-9]{2}[.-][0-9]{4}|[2-9][0-9]{2} [2-9][0-9]{2} [0-9]{4}|0[1-9][0-9]{1,3}[ /-][0-9]{5,8}|0[1-9](?:[ .][0-9]{2}){4})\b",
        r"\1<phone>",
        like=("+49 30 1234567", "004930123456789", "(555) 123-4567", "call 555-867-5309", "0171/1234567", "+1-202-555-0143", "06 12 34 56 78", "0049 30 123456"),
        unlike=("2026-11-23", "12.5", "1,000,000", "017-usage-data-collection", "+1", "200 OK", "2.1.330", "3600 s", "00000000-0000-0000", "00402931-9191-4611-8e42-bb50870bb8d7"),
        look=r"(?:\+|00)[1-9][0-9 ./()-]{3}|\([0-9]{2,6}\)|[0-9]{3}[. -][0-9]{3}[. -][0-9]{4}|0[1-9][0-9]{1,3}[ /-][0-9]{5}|0[1-9](?:[ .][0-9]{2}){4}",
        source="ITU-T E.164, E.123; national forms of NANP, DE, FR",
    ),
    Pattern(
        "ip-address",
        r"(^|[^0-9A-Za-z.])(?:[1-9][0-9]?|1[013-9][0-9]|12[0-689]|2[0-4][0-9]|25[0-5])(?:\.(?:25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])){3}",
        r"\1<ip-address>",
        like=("203.0.113.77", "at 10.1.2.3:80"),
        unlike=("127.0.0.1", "2.1.330", "v1.2.3.4", "0.0.0.0", "1.2.3", "12.5"),
        look=r"[0-9](?:\.[0-9]{1,3}){3}",
        source="RFC 791; not loopback, which names nobody",
    ),
    Pattern(
        "ipv6-address",
        r"(?i)(^|[^0-9A-Za-z:.])(?:[23][0-9a-f]{3}|f[cd][0-9a-f]{2}|fe[89ab][0-9a-f])(?:(?::[0-9a-f]{1,4}){7}|(?::[0-9a-f]{1,4}){0,6}::(?:[0-9a-f]{1,4}(?::[0-9a-f]{1,4}){0,6})?)"
        r"(?:%[0-9a-z]{1,12})?",
        r"\1<ip-address>",
        like=("2001:db8::8a2e:370:7334", "fe80::1%eth0", "[2001:db8:85a3:0:0:8a2e:370:7334]:80"),
        unlike=("std::string", "12:34:56", "::1", "2026:11:23", "a::b"),
        look=r"(?i)::|(?::[0-9a-f]{1,4}){7}",
        source="RFC 4291; global, unique local and link-local addresses",
    ),
)  # fmt: skip
