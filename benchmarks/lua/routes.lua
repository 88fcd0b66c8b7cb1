-- Spreads the requests over all routes, in an order that is not the file's.
local n = 0
local total = tonumber(os.getenv("BENCH_ROUTES"))
function request()
  n = (n + 7919) % total
  return string.format("GET /service-%05d/item HTTP/1.1\r\nHost: localhost\r\n\r\n", n)
end
