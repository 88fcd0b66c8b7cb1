#!/bin/sh
# Made by `headgate export elastic`; do not edit, make it again.
# Puts everything into Elasticsearch, and into Kibana where KIBANA_URL is set.
# ELASTICSEARCH_API_KEY is id:key, as Filebeat and Logstash want it.
set -eu
cd "$(dirname "$0")"
: "${ELASTICSEARCH_URL:=http://localhost:9200}"
: "${ELASTICSEARCH_API_KEY:=}"

ask() {
    if [ -n "$ELASTICSEARCH_API_KEY" ]; then
        key=$(printf %s "$ELASTICSEARCH_API_KEY" | base64 | tr -d '\n')
        curl -fsS -H "Authorization: ApiKey $key" "$@"
    else
        curl -fsS "$@"
    fi
    echo
}

put() {
    ask -X PUT "$ELASTICSEARCH_URL/$1" -H 'Content-Type: application/json' --data-binary "@$2"
}

put _ilm/policy/headgate-logs lifecycle.json
put _ingest/pipeline/headgate-access-steps steps-access.json
put _ingest/pipeline/headgate-lines-steps steps-lines.json
put _ingest/pipeline/headgate-access pipeline-access.json
put _ingest/pipeline/headgate-lines pipeline-lines.json
put _component_template/headgate-fields fields.json
put _index_template/headgate-access template-access.json
put _index_template/headgate-log template-log.json
put _index_template/headgate-sink template-sink.json

if [ -n "${KIBANA_URL:-}" ]; then
    ask -X POST "$KIBANA_URL/api/saved_objects/_import?overwrite=true" \
        -H 'kbn-xsrf: headgate' -F file=@kibana.ndjson
fi
