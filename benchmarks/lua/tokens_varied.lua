-- The issued tokens in turn; everything else about a request changes every time.
local tokens, n = {}, 0
for token in io.lines(os.getenv("BENCH_TOKENS")) do tokens[#tokens + 1] = token end
function request()
  n = n + 1
  local id = string.format("%08x", (n * 2654435761) % 4294967296)
  return "GET /api/orders/" .. n .. "?page=" .. (n % 97) .. " HTTP/1.1\r\nHost: localhost\r\n" ..
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) bench/" .. (n % 50) ..
    "\r\nAccept: application/json, text/plain, */*\r\nCookie: session=" .. id ..
    "; theme=dark\r\nX-Internal: 1\r\nX-Trace: " .. id .. "-" .. n ..
    "\r\nAuthorization: Bearer " .. tokens[n % #tokens + 1] .. "\r\n\r\n"
end
