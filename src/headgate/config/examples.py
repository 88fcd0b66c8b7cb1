"""Examples for the reference of the file, by section; here so that a test can load them all."""

from __future__ import annotations

from typing import Final

EXAMPLES: Final[dict[str, str]] = {
    "Config": """\
listeners: [0.0.0.0:8080]
services:
  users: http://127.0.0.1:3001
  products: [http://127.0.0.1:3002, http://127.0.0.1:3003]
compress: true
routes:
  - match: {path: /api/users/}
    to: users
  - match: {path: /api/products/}
    to: products
    timeout: 2s
""",
    "ListenerSpec": """\
listeners:
  - 0.0.0.0:8080
  - bind: 0.0.0.0:8443
    tls: local
  - bind: unix:/run/headgate/http.sock
    mode: 660
""",
    "ServiceSpec": """\
services:
  users:
    instances:
      - http://127.0.0.1:3001
      - {url: http://127.0.0.1:3011, weight: 2}
    timeout: {first_byte: 5s, idle: 30s}
    pool: {connections: 100}
  search:
    instances: https://search.internal
    host: instance
    headers:
      request:
        set: {authorization: "Bearer ${env:SEARCH_TOKEN:-none}"}
routes:
  - {match: {path: /users/}, to: users}
  - {match: {path: /search/}, to: search}
""",
    "RouteSpec": """\
services:
  users: http://127.0.0.1:3001
routes:
  - match: {path: /api/users/, methods: [GET, PUT]}
    to: users
    strip: true
  - match: {path: "/u/{id:int}", host: "*.example.org"}
    to: users
    rewrite: /api/users/{id}
  - match: {path: /old/}
    redirect: https://example.org{path}{query}
  - match: {exact: /ping}
    respond: {body: "pong\\n"}
""",
    "MatchSpec": """\
services:
  next: http://127.0.0.1:3002
routes:
  - match:
      host: [shop.example.org, www.example.org]
      path: /api/
      headers: {x-beta: "1"}
      query: {version: "~^v[0-9]+$"}
      cookies: {session: {present: true}}
      client_ip: 10.0.0.0/8
    to: next
""",
    "HeadersSpec": """\
headers:
  request:
    remove: x-internal
    set: {x-from: gateway}
  response:
    rename: {server: x-server}
    add: {cache-control: no-transform}
""",
    "CompressSpec": """\
compress:
  algorithms: [br, gzip]
  min_size: 2KB
""",
    "CacheSpec": """\
cache: true
services: {shop: http://127.0.0.1:3001}
routes:
  - match: {path: "/products/{id}"}
    to: shop
    cache:
      ttl: 5min
      ttl_by_status: {404: 10s}
      stale_while_revalidate: 30s
      stale_if_error: 1h
      tags: "product:{id}"
  - {match: {path: /basket/}, to: shop, cache: false}
""",
    "CacheKeySpec": """\
auth: {jwt: {issuer: https://login.example, audience: shop, keys: discover}}
services: {shop: http://127.0.0.1:3001}
routes:
  - match: {path: /list/}
    to: shop
    cache: {ttl: 1min, key: {query: {without: [utm_*, fbclid]}, headers: x-country}}
  - match: {path: /prices/}
    to: shop
    auth: jwt
    cache: {ttl: 1min, key: {query: [page, size], claims: tenant}}
""",
    "CacheStoreSpec": """\
cache: true
cache_store: {memory: 256MB, disk: {path: /var/cache/headgate, size: 20GB}}
""",
    "TimeoutSpec": """\
timeout: {connect: 1s, first_byte: 10s, total: 1min}
""",
    "BalanceSpec": """\
services:
  users:
    instances:
      - {url: http://10.0.1.1:3001, zone: north, weight: 2}
      - {url: http://10.0.1.2:3001, zone: north}
      - {url: http://10.9.1.1:3001, zone: south, priority: 1}   # a backup
    balance: {by: peak_ewma, slow_start: 30s}
  carts:
    instances: [http://10.0.2.1:3002, http://10.0.2.2:3002]
    balance: {by: consistent_hash, key: "header:x-session"}
zone: north
routes:
  - {match: {path: /users/}, to: users}
  - {match: {path: /carts/}, to: carts}
""",
    "AffinitySpec": """\
services:
  shop:
    instances: [http://127.0.0.1:3001, http://127.0.0.1:3002]
    affinity: {cookie: shop-instance, ttl: 1h}
routes: [{to: shop}]
""",
    "HealthSpec": """\
services:
  users: {instances: [http://127.0.0.1:3001, http://127.0.0.1:3011], health: /health/ready}
  search:
    instances: [http://127.0.0.1:3002, http://127.0.0.1:3012]
    health: {path: /status, every: 10s, unhealthy_every: 2s, status: 200, body: '"ok"'}
  greeter: {instances: http://127.0.0.1:50051, http: "2", health: {kind: grpc}}
routes: [{to: [users, search, greeter]}]
""",
    "OutlierSpec": """\
outlier: {errors: 5, failure_rate: 30%, interval: 10s, max_ejected: 30%}
""",
    "BreakerSpec": """\
breaker: {failure_rate: 50%, window: 20 calls, reset_after: 60s}
services:
  search:
    instances: http://127.0.0.1:3002
    breaker: {window: 30s, minimum_calls: 50, slow: 2s, slow_rate: 80%, failures: {status: 5xx}}
  legacy: {instances: http://127.0.0.1:3003, breaker: false}
routes: [{to: [search, legacy]}]
""",
    "RetrySpec": """\
retry: {attempts: 3, budget: 20%}
services: {orders: [http://127.0.0.1:3001, http://127.0.0.1:3011]}
routes:
  - {match: {path: /orders/}, to: orders}
  - match: {path: /orders/search, methods: POST}
    to: orders
    retry: {attempts: 2, methods: [POST], when: {status: 503, errors: [connect, reset]}}
    timeout: {per_try: 500ms, total: 2s}
""",
    "HedgeSpec": """\
services:
  search:
    instances: [http://127.0.0.1:3001, http://127.0.0.1:3011]
    retry: {attempts: 2, budget: 10%}
    hedge: {after: p95}
routes: [{to: search}]
""",
    "LimitSpec": """\
limit: 1000/15min
services: {api: http://127.0.0.1:3001}
routes:
  - {match: {path: /api/}, to: api}
  - match: {path: /api/auth/}
    to: api
    limit:
      - {rate: 50/15min, by: ip}
      - {rate: 5/s, by: "{ip} {header.x-device}", burst: 10, name: device}
  - match: {path: /api/reports/}
    to: api
    limit:
      - {rate: 100/h, cost: {units: 1, header: x-cost}, refund: 5xx, headers: both}
      - {concurrency: 2, by: ip, name: at-once}
""",
    "ConcurrencySpec": """\
services:
  reports: {instances: http://127.0.0.1:3001, concurrency: {limit: 20, queue: 50}}
  search: {instances: http://127.0.0.1:3002, concurrency: {adaptive: gradient, most: 200}}
routes: [{to: [reports, search]}]
""",
    "ImportanceSpec": """\
shed: true
services: {api: http://127.0.0.1:3001}
routes:
  - {match: {path: /pay/}, to: api, importance: critical}
  - {match: {path: /feed/}, to: api, importance: low}
""",
    "FallbackSpec": """\
services: {tips: http://127.0.0.1:3001, tips-static: http://127.0.0.1:3002}
routes:
  - match: {path: /tips/}
    to: tips
    fallback: {service: tips-static}
  - match: {path: /banner}
    to: tips
    fallback: {when: [open, failed, timeout, 5xx], respond: {body: "[]", type: application/json}}
""",
    "DegradeSpec": """\
shed: true
degrade:
  flags: {recommendations: on, new-search: 10%}
  levels:
    - {name: normal}
    - {name: lean, measures: [service, static], flags_off: recommendations, when: {open: tips}}
    - {name: survival, measures: [static, shed], flags_off: recommendations, when: {shedding: true}}
services: {tips: {instances: http://127.0.0.1:3001, breaker: true}}
routes:
  - match: {path: /tips/}
    to: tips
    flag: recommendations
    fallback: {respond: {body: "[]", type: application/json}}
  - {match: {path: /search2/}, to: tips, flag: new-search}
""",
    "SplitSpec": """\
services:
  products: http://127.0.0.1:3001
  products-next: http://127.0.0.1:3002
routes:
  - match: {path: /products/}
    to: {products: 95%, products-next: 5%}
    split: {sticky: cookie, header: {x-canary: {"1": products-next}}}
""",
    "MirrorSpec": """\
services: {products: http://127.0.0.1:3001, products-next: http://127.0.0.1:3002}
routes:
  - match: {path: /products/, methods: GET}
    to: products
    mirror: {to: products-next, share: 10%}
""",
    "FaultSpec": """\
services: {products: http://127.0.0.1:3001}
routes:
  - match: {path: /products/}
    to: products
    fault: {delay: 2s, delay_share: 10%, abort: 503, abort_share: 1%, header: {x-chaos: "1"}}
""",
    "PluginSpec": """\
plugins:
  - use: shop.filters:Stamp
    options: {text: hello}
""",
    "AuthSpec": """\
auth:
  default: jwt
  jwt:
    - {issuer: https://login.example, audience: shop, keys: discover}
    - {name: partners, issuer: https://partners.example, audience: shop, keys: discover}
services: {orders: http://127.0.0.1:3001}
routes:
  - {match: {path: /orders/}, to: orders, auth: [jwt, partners], allow: {roles: customer}}
  - {match: {path: /catalogue/}, to: orders, auth: {methods: jwt, anonymous: true}}
  - {match: {path: /health}, to: orders, auth: false}
""",
    "JwtSpec": """\
auth:
  jwt:
    issuer: https://login.example/
    audience: shop
    keys: discover
    require: {email_verified: "true"}
    claims: {roles: resource_access.shop.roles}
""",
    "LoginSpec": """\
auth:
  login:
    issuer: https://id.example/realms/shop
    client_id: shop
    client_secret: ${env:LOGIN_SECRET:-change-me}
    secret: ${env:COOKIE_SECRET:-a text of at least 32 characters, from outside}
    scopes: [openid, email, offline_access]
    claims_from: {roles: realm_access.roles}
""",
    "SignatureSpec": """\
auth:
  signature:
    keys:
      partner-a: {secrets: "${env:PARTNER_A:-a secret of at least 32 bytes}", roles: partner}
""",
    "CertificateAuthSpec": """\
auth:
  certificate:
    subject: ["{uri}", "{cn}"]
    match: [{uri: "spiffe://prod/*", roles: internal}]
""",
    "IntrospectionSpec": """\
auth:
  introspection:
    url: https://issuer.example/introspect
    client_id: gateway
    client_secret: ${env:INTROSPECTION_SECRET:-change-me}
""",
    "AllowSpec": """\
auth: {default: jwt, jwt: {issuer: https://login.example, audience: shop, keys: discover}}
services: {users: http://127.0.0.1:3001}
routes:
  - match: {path: "/users/{id}"}
    to: users
    allow: [{params: {id: subject}}, admin]
  - match: {path: /reports/}
    to: users
    allow: {scopes: reports:read, times: mon-fri 08:00-18:00 Europe/Berlin, none: suspended}
""",
    "CorsSpec": """\
cors:
  origins: ["https://app.example.org", "https://*.preview.example.org"]
  methods: [GET, PUT]
  credentials: true
""",
    "CsrfSpec": """\
csrf: {trusted: "https://app.example.org"}
""",
    "SecureHeadersSpec": """\
secure_headers: {csp: "default-src 'self'", frame: deny, permissions: {camera: none}}
""",
    "AddressesSpec": """\
addresses: {allow: [10.0.0.0/8, 192.0.2.0/24], deny: 192.0.2.66}
""",
    "BansSpec": """\
bans:
  when: [{kind: status_4xx, more_than: 100, within: 1min, ban: 10min}]
  exempt: [198.51.100.0/24]
""",
    "BotsSpec": """\
bots: {deny: [scraper, ai], tag: x-bot}
""",
    "InjectionSpec": """\
injection: {mode: block, exclude: [json.post.html, query.filter]}
""",
    "AuditSpec": """\
audit: {keep: 400d, anchor: [stderr]}
""",
    "RedactionSpec": """\
redaction: {emails: mask, patterns: [{pattern: "BADGE-[0-9]{6}", name: badge}]}
""",
    "LimitsSpec": """\
limits:
  body: 1MB
  connections_per_ip: 100
""",
    "AdminSpec": """\
admin:
  bind: 127.0.0.1:9900
  token: ${env:ADMIN_TOKEN:-change-me}
  tokens:
    - name: ci
      role: operator
      hash: 9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    - {name: shop, role: ingest, token: "${env:SHOP_TOKEN:-one-that-nobody-guesses}"}
  config_writes: true
""",
    "AccessLogSpec": """\
access_log:
  path: logs/access.log
  redact: [authorization, cookie, set-cookie, token]
""",
    "ErrorPageSpec": """\
error_pages:
  404: {body: "<h1>Not here</h1>"}
  5xx: {body: "<h1>Sorry</h1><p>{request_id}</p>"}
""",
}
"""One a section. Each holds with a listener added, which the tests see to."""
