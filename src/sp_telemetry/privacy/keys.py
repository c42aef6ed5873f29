"""What the keys and tokens of many providers look like: one line a format, from what the providers publish.

Facts only: a prefix that the provider promises, the alphabet and the least length behind it. `bounded`: the prefix is so short or so
common that it counts only where a word begins. The syntax is what RE2, Vectorscan and Python read alike.
"""

# ruff: noqa: E501 - a pattern is one line
from __future__ import annotations

from typing import NamedTuple


class Key(NamedTuple):
    """A format: whose, what it looks like, where that is published."""

    provider: str
    regex: str
    source: str
    bounded: bool = False


W = "[A-Za-z0-9_-]"
N = "[A-Za-z0-9]"
H = "[0-9a-fA-F]"
KEYS: tuple[Key, ...] = (
    # models
    Key("Anthropic", rf"sk-ant-{W}{{8,}}", "docs.anthropic.com, API keys; OAuth tokens sk-ant-oat"),
    Key("OpenAI", rf"sk-(?:proj|svcacct|admin|None)-{W}{{16,}}|sk-{N}{{20,}}", "platform.openai.com, API keys", True),
    Key("OpenRouter", rf"sk-or-{W}{{16,}}", "openrouter.ai/docs, authentication"),
    Key("Groq", rf"gsk_{N}{{20,}}", "console.groq.com, keys"),
    Key("xAI", rf"xai-{N}{{20,}}", "docs.x.ai", True),
    Key("Perplexity", rf"pplx-{N}{{20,}}", "docs.perplexity.ai"),
    Key("Replicate", rf"r8_{N}{{20,}}", "replicate.com/docs, API tokens", True),
    Key("Hugging Face", rf"hf_{N}{{16,}}|api_org_{N}{{20,}}", "huggingface.co/docs/hub/security-tokens", True),
    Key("LangSmith", rf"lsv2_(?:pt|sk)_{H}{{16,}}(?:_{H}+)?", "docs.smith.langchain.com"),
    Key("Langfuse", rf"[sp]k-lf-{H}{{8}}-[0-9a-fA-F-]{{20,}}", "langfuse.com/docs"),
    Key("Cerebras", r"csk-[a-z0-9]{30,}", "inference-docs.cerebras.ai", True),
    Key("Tavily", rf"tvly-(?:dev-|prod-)?{N}{{16,}}", "docs.tavily.com"),
    Key("Firecrawl", rf"fc-{H}{{32,}}", "docs.firecrawl.dev", True),
    Key("Fireworks", rf"fw_{N}{{20,}}", "docs.fireworks.ai", True),
    Key("Together", rf"tgp_v1_{W}{{20,}}", "docs.together.ai"),
    Key("Pinecone", r"pcsk_[A-Za-z0-9_]{20,}", "docs.pinecone.io"),
    Key("Weights & Biases", r"wandb_v1_[A-Za-z0-9_]{20,}", "docs.wandb.ai"),
    Key("NVIDIA", rf"nvapi-{W}{{32,}}", "docs.api.nvidia.com, API keys"),
    Key("ElevenLabs", rf"sk_{H}{{40,}}", "elevenlabs.io/docs/api-reference/authentication", True),
    Key("Jina", rf"jina_{W}{{40,}}", "jina.ai/api-dashboard"),
    Key("RunPod", rf"rpa_{N}{{30,}}", "docs.runpod.io, API keys", True),
    Key("E2B", rf"e2b_{H}{{32,}}", "e2b.dev/docs, API key", True),
    Key("Apify", rf"apify_(?:api|proxy)_{N}{{30,}}", "docs.apify.com, API tokens"),
    Key("Helicone", r"sk-helicone-[a-z0-9-]{14,}", "docs.helicone.ai"),
    Key("Letta", rf"sk-let-{W}{{30,}}", "docs.letta.com", True),
    Key("Cursor", rf"(?:crsr|key)_{H}{{64}}", "cursor.com/docs, API keys", True),
    Key("Amp", rf"sgamp_{W}{{32,}}", "ampcode.com/manual, access token"),
    Key("Logfire", rf"pylf_v[0-9]_[a-z]{{2}}_{N}{{30,}}", "logfire.pydantic.dev, tokens"),
    # clouds
    Key("AWS", r"(?:AKIA|ASIA|ABIA|ACCA|AGPA|AIDA|AIPA|ANPA|ANVA|APKA|AROA|ASCA)[A-Z0-9]{12,}", "docs.aws.amazon.com, IAM identifiers", True),
    Key("AWS Bedrock", r"ABSK[A-Za-z0-9+/=]{30,}|bedrock-api-key-[A-Za-z0-9+/=_-]{20,}", "docs.aws.amazon.com/bedrock, API keys"),
    Key("Google", rf"AIza{W}{{20,}}|AQ\.Ab8{W}{{30,}}|ya29\.{W}{{10,}}|GOCSPX-{W}{{16,}}|1//0{W}{{20,}}", "cloud.google.com/docs/authentication, api-keys"),
    Key("Azure", r"[A-Za-z0-9_~.-]{3}[78]Q~[A-Za-z0-9_~.-]{31,}|[A-Za-z0-9+/]{30,}(?:AzFu|AzSe|\+ASt|AzCa|ACDb|APIM|JQQJ99)[A-Za-z0-9+/=]{4,}", "learn.microsoft.com, Entra client secrets; identifiable keys"),
    Key("Azure DevOps", rf"{N}{{40,}}AZDO{N}{{4}}", "learn.microsoft.com/azure/devops, PAT format"),
    Key("DigitalOcean", rf"do[opr]_v1_{H}{{32,}}", "docs.digitalocean.com, tokens"),
    Key("Alibaba Cloud", rf"LTAI{N}{{12,}}", "alibabacloud.com/help, AccessKey", True),
    Key("Tencent Cloud", rf"AKID{N}{{28,}}", "cloud.tencent.com/document, CAM", True),
    Key("Yandex Cloud", rf"AQVN{W}{{30,}}|t1\.{W}{{20,}}\.{W}{{40,}}", "yandex.cloud/docs/iam", True),
    Key("Scaleway", r"SCW[A-Z0-9]{17}", "scaleway.com/docs, API keys", True),
    Key("Cloudflare", rf"v1\.0-{H}{{24}}-{H}{{32,}}|cf(?:ut|at|k)_{N}{{30,}}", "developers.cloudflare.com, Origin CA keys; token formats"),
    Key("Fly.io", r"(?:fo1|fm1[ar]|fm2)_[A-Za-z0-9+/=_-]{30,}", "fly.io/docs, access tokens"),
    Key("Heroku", rf"HRKU-{W}{{30,}}", "devcenter.heroku.com, API tokens"),
    Key("Vercel", rf"vc[aikpr]_{N}{{24,}}|vercel_blob_rw_{W}{{16,}}", "vercel.com/docs, tokens", True),
    Key("Netlify", rf"nf[bcopu]_{N}{{30,}}", "docs.netlify.com, API tokens", True),
    Key("Render", rf"rnd_{N}{{20,}}", "render.com/docs/api", True),
    Key("Supabase", rf"sbp_(?:oauth_)?{H}{{32,}}|sb_secret_{W}{{16,}}", "supabase.com/docs, API keys"),
    Key("PlanetScale", r"pscale_(?:tkn|pw|oauth)_[A-Za-z0-9_.=-]{20,}", "planetscale.com/docs"),
    Key("Neon", rf"napi_{N}{{30,}}|npg_{N}{{10,}}", "neon.tech/docs, API keys", True),
    Key("MongoDB Atlas", rf"mdb_sa_sk_{W}{{30,}}", "mongodb.com/docs/atlas, service accounts"),
    Key("CockroachDB", rf"CCDB1_{N}{{16,}}_{N}{{30,}}", "cockroachlabs.com/docs, service accounts"),
    Key("ClickHouse Cloud", rf"4b1d{N}{{38}}\b", "clickhouse.com/docs/cloud, API keys", True),
    Key("Databricks", rf"(?:dapi|dose){H}{{32}}", "docs.databricks.com, personal access tokens, OAuth secrets"),
    Key("Tailscale", r"tskey-[a-z]+-[A-Za-z0-9-]{10,}", "tailscale.com/kb, keys"),
    Key("Doppler", r"dp\.(?:pt|st|ct|sa|scim|audit)\.[A-Za-z0-9._-]{20,}", "docs.doppler.com, token formats", True),
    Key("HashiCorp Vault", rf"hv[sbr]\.{W}{{20,}}", "developer.hashicorp.com/vault, tokens", True),
    Key("Terraform Cloud", rf"{N}{{14}}\.atlasv1\.{W}{{30,}}", "developer.hashicorp.com/terraform/cloud-docs"),
    Key("Pulumi", rf"pul-{H}{{32,}}", "pulumi.com/docs, access tokens", True),
    Key("1Password", r"ops_eyJ[A-Za-z0-9+/=_-]{30,}", "developer.1password.com, service accounts"),
    Key("Infisical", rf"st\.{H}{{24}}\.{H}{{32}}\.{H}{{32}}", "infisical.com/docs, service tokens", True),
    Key("Harness", rf"[ps]at\.{W}{{20,}}\.{N}{{24}}\.{N}{{20}}", "developer.harness.io, API keys", True),
    # forges, packages, builds
    Key("GitHub", rf"gh[pousr]_{N}{{16,}}(?:_eyJ[A-Za-z0-9._-]+)?|github_pat_[A-Za-z0-9_]{{16,}}", "docs.github.com, token formats"),
    Key("GitLab", rf"gl(?:pat|ptt|dt|rt|rtr|cbt|soat|ft|imt|agent|oas|ffct|wt)-{W}{{10,}}(?:\.[0-9a-z]{{2,9}}){{0,2}}|GR1348941{W}{{16,}}", "docs.gitlab.com, token prefixes"),
    Key("Atlassian", r"AT(?:ATT3|CTT3|STT3|BB)[A-Za-z0-9_=-]{20,}", "support.atlassian.com, API tokens", True),
    Key("npm", rf"npm_{N}{{20,}}", "docs.npmjs.com, access tokens"),
    Key("PyPI", rf"pypi-Ag{W}{{16,}}", "pypi.org/help, API tokens"),
    Key("RubyGems", rf"rubygems_{H}{{32,}}", "guides.rubygems.org"),
    Key("crates.io", rf"cio{N}{{32}}", "doc.rust-lang.org/cargo", True),
    Key("NuGet", r"oy2[a-z0-9]{43}", "learn.microsoft.com/nuget", True),
    Key("Clojars", r"CLOJARS_[a-z0-9]{40,}", "github.com/clojars, deploy tokens"),
    Key("Docker Hub", rf"dckr_[op]at_{W}{{16,}}", "docs.docker.com, access tokens"),
    Key("JFrog", rf"AKCp{N}{{40,}}|cmVmdGtu{N}{{50,}}", "jfrog.com/help, API key, reference token", True),
    Key("SonarQube", rf"sq[apu]_{H}{{40}}", "docs.sonarsource.com, tokens", True),
    Key("Sourcegraph", rf"sgp_(?:[0-9A-Za-z]+_)?{N}{{30,}}", "sourcegraph.com/docs; Segment public API", True),
    Key("CircleCI", rf"CCI(?:PAT|PRJ)_{N}{{10,}}_{H}{{20,}}", "circleci.com/docs, API tokens"),
    Key("Buildkite", rf"bk[a-z]{{2}}_{H}{{40}}", "buildkite.com/docs/apis", True),
    Key("Prefect", rf"pn[ub]_{N}{{30,}}", "docs.prefect.io, API keys", True),
    Key("dbt", rf"dbt[cu]_{W}{{30,}}", "docs.getdbt.com, personal and service tokens", True),
    Key("Packagist", rf"packagist_[ou][ru]t_{H}{{60,}}", "packagist.com/docs"),
    Key("Snyk", rf"snyk_[a-z]{{2,5}}\.{H}{{8}}\.{W}{{20,}}(?:\.{W}+)*", "docs.snyk.io, token formats"),
    Key("Depot", rf"depot_(?:project|org|user)_{N}{{40,}}", "depot.dev/docs"),
    Key("Gitpod", rf"gitpod_pat_{W}{{30,}}", "gitpod.io/docs"),
    Key("Daytona", rf"dtn_{H}{{40,}}", "daytona.io/docs", True),
    # observability
    Key("Grafana", rf"glsa_{N}{{24,}}_{H}{{8}}|eyJrIjoi[A-Za-z0-9+/=]{{40,}}|glc_[A-Za-z0-9+/=]{{30,}}", "grafana.com/docs, tokens"),
    Key("New Relic", r"NR(?:AK|JS|II|IQ|RA|BR|AA)-[A-Za-z0-9]{16,}|[0-9a-fA-F]{36}NRAL", "docs.newrelic.com, API keys"),
    Key("Sentry", r"sntry[su]_[A-Za-z0-9+/=_-]{20,}", "docs.sentry.io, auth tokens"),
    Key("Honeycomb", rf"hc[a-z](?:ik|ic|lk|mk)_{N}{{20,}}", "docs.honeycomb.io, API keys", True),
    Key("Dynatrace", r"dt0[a-z][0-9]{2}\.[A-Z0-9]{20,}\.[A-Z0-9]{30,}", "docs.dynatrace.com, access tokens"),
    Key("PostHog", rf"ph[acsx]_{N}{{30,}}", "posthog.com/docs/api", True),
    Key("Datadog", rf"dd(?:app|pat)_{N}{{30,}}", "docs.datadoghq.com, application keys, access tokens"),
    Key("PagerDuty", r"pdus\+[A-Za-z0-9+_-]{16,}", "developer.pagerduty.com", True),
    Key("Axiom", rf"xa(?:at|pt)-{H}{{8}}-[0-9a-f-]{{20,}}", "axiom.co/docs, tokens"),
    Key("LaunchDarkly", rf"(?:sdk|mob|api)-{H}{{8}}(?:-{H}{{4}}){{3}}-{H}{{12}}", "launchdarkly.com/docs, keys", True),
    # payment, mail, messages, tools
    Key("Stripe", rf"(?:sk|rk|pk)_(?:org_)?(?:live|test)_{N}{{8,}}|whsec_[A-Za-z0-9+/=]{{16,}}", "docs.stripe.com/keys"),
    Key("Square", rf"sq0[a-z]{{3}}-{W}{{20,}}|EAAA{W}{{40,}}", "developer.squareup.com", True),
    Key("Braintree", rf"access_token\$(?:production|sandbox)\$[a-z0-9]{{16}}\${H}{{32}}", "developer.paypal.com/braintree"),
    Key("Plaid", rf"access-(?:sandbox|development|production)-{H}{{8}}-[0-9a-f-]{{20,}}", "plaid.com/docs"),
    Key("Shopify", rf"shp(?:at|ca|pa|ss|ua|tka)_{H}{{32}}", "shopify.dev, access tokens"),
    Key("Shippo", rf"shippo_(?:live|test)_{H}{{30,}}", "docs.goshippo.com"),
    Key("EasyPost", rf"EZ[AT]K{N}{{40,}}", "docs.easypost.com", True),
    Key("Brevo", rf"x(?:key|smtp)sib-{H}{{32,}}(?:-{N}+)?", "developers.brevo.com"),  # before Twilio's, which may begin within it
    Key("Twilio", rf"(?:SK|AC){H}{{32,}}", "twilio.com/docs, API keys", True),
    Key("Resend", rf"re_{N}{{8}}_{N}{{20,}}", "resend.com/docs", True),
    Key("Razorpay", rf"rzp_(?:live|test)_{N}{{14,}}", "razorpay.com/docs"),
    Key("Flutterwave", rf"FLW(?:PUB|SEC)K(?:_TEST)?-{N}{{12,}}(?:-X)?", "developer.flutterwave.com"),
    Key("Duffel", rf"duffel_(?:live|test)_{W}{{30,}}", "duffel.com/docs"),
    # not `test_`: folders and files are named so, in which a hook would have to look closer, and such a key opens nothing
    Key("Mollie", rf"live_{N}{{30,}}(?:_pub)?", "docs.mollie.com; GoCardless, Lob", True),
    Key("Polar", rf"polar_[a-z]{{2,4}}_{N}{{30,}}", "docs.polar.sh, tokens"),
    Key("SendGrid", rf"SG\.{W}{{16,}}\.{W}{{16,}}", "docs.sendgrid.com, API keys", True),
    Key("Mailgun", rf"key-{H}{{32,}}", "documentation.mailgun.com", True),
    Key("Mailchimp", rf"{H}{{32}}-us[0-9]{{1,2}}", "mailchimp.com/developer, API keys", True),
    Key("Slack", r"xox[abceoprs](?:\.xox[bp])?-[A-Za-z0-9-]{8,}|xapp-[0-9]-[A-Za-z0-9-]{16,}|xwfp-[A-Za-z0-9-]{16,}|hooks\.slack\.com/(?:services|workflows|triggers)/[A-Za-z0-9+/]{16,}", "api.slack.com, token types"),
    Key("Discord", rf"[MNO]{W}{{23,27}}\.{W}{{6}}\.{W}{{27,}}|discord(?:app)?\.com/api/webhooks/[0-9]+/{W}{{16,}}", "discord.com/developers/docs", True),
    Key("Telegram", rf"[0-9]{{8,10}}:AA{W}{{30,}}", "core.telegram.org/bots", True),
    Key("Notion", rf"ntn_{N}{{30,}}|secret_{N}{{43}}", "developers.notion.com"),
    Key("Linear", rf"lin_(?:api|oauth)_{N}{{20,}}", "linear.app/docs"),
    Key("Figma", rf"fig[dopru]_{W}{{30,}}", "developers.figma.com"),
    Key("Airtable", rf"pat{N}{{14}}\.{H}{{32,}}", "airtable.com/developers", True),
    Key("HubSpot", rf"pat-(?:na|eu|ap)[0-9]-{H}{{8}}-[0-9a-f-]{{20,}}", "developers.hubspot.com, private apps", True),
    Key("Trello", rf"ATTA{N}{{60,}}", "support.atlassian.com/trello", True),
    Key("ClickUp", r"pk_[0-9]{6,}_[A-Z0-9]{30,}", "developer.clickup.com", True),
    Key("Frame.io", rf"fio-u-{W}{{40,}}", "developer.frame.io", True),
    Key("Mapbox", rf"[spt]k\.eyJ{W}{{20,}}\.{W}{{16,}}", "docs.mapbox.com, access tokens", True),
    Key("Meta", rf"EAA[A-Za-z0-9]{{90,}}|IGQ{W}{{90,}}", "developers.facebook.com, access tokens", True),
    Key("X (Twitter)", r"A{20,}[A-Za-z0-9%]{50,}", "docs.x.com, bearer tokens", True),
    Key("Webhook", r"hooks\.zapier\.com/hooks/catch/[0-9]+/[A-Za-z0-9/]+|[a-z0-9-]+\.webhook\.office\.com/webhookb2/[A-Za-z0-9@/_-]{30,}|open\.(?:feishu\.cn|larksuite\.com)/open-apis/bot/v2/hook/[0-9a-f-]{30,}", "docs.zapier.com; learn.microsoft.com/microsoftteams; open.feishu.cn"),
    Key("Postman", rf"PMAK-{H}{{24}}-{H}{{30,}}", "learning.postman.com"),
    Key("Contentful", rf"CFPAT-{W}{{30,}}", "contentful.com/developers/docs"),
    Key("Typeform", r"tfp_[A-Za-z0-9_.=-]{30,}", "developer.typeform.com", True),
    Key("ReadMe", r"rdme_[a-z0-9]{40,}", "docs.readme.com"),
    Key("age", r"AGE-SECRET-KEY-1[0-9A-Z]{40,}", "github.com/FiloSottile/age"),
)  # fmt: skip
