-- Every request differs in path, query and headers, so that no cache of heads helps anybody.
-- With BENCH_PATH all ask for that path, each with a query of its own.
local n = 0
local path = os.getenv("BENCH_PATH")
local before = "Host: localhost\r\nUser-Agent: Mozilla/5.0 (X11; Linux x86_64) bench/"
local middle = "\r\nAccept: application/json, text/plain, */*\r\n" ..
  "Accept-Language: en-GB,en;q=0.9,de;q=0.7\r\nAccept-Encoding: identity\r\nCookie: session="
function request()
  n = n + 1
  local id = string.format("%08x", (n * 2654435761) % 4294967296)
  return "GET " .. (path or ("/items/" .. n)) .. "?page=" .. (n % 97) .. "&q=" .. id .. " HTTP/1.1\r\n" ..
    before .. (n % 50) .. middle .. id .. "; theme=dark\r\nX-Trace: " .. id .. "-" .. n .. "\r\n\r\n"
end
