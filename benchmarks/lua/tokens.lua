-- One of the issued tokens a request, so that the limiter and the token cache see many users.
local requests, n = {}, 0
for token in io.lines(os.getenv("BENCH_TOKENS")) do
  requests[#requests + 1] = "GET /api/orders/42 HTTP/1.1\r\nHost: localhost\r\n" ..
    "User-Agent: bench\r\nX-Internal: 1\r\nAuthorization: Bearer " .. token .. "\r\n\r\n"
end
function request()
  n = n % #requests + 1
  return requests[n]
end
