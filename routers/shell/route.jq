# Routes HTTP by its Host header:  tproxy --router 'jq -c --unbuffered -f route.jq'

def routes: {
  "one.localhost": "127.0.0.1:8001",
  "two.localhost": "127.0.0.1:8002"
};

def verdict:
  (capture("\r\nhost:[ \t]*(?<host>[^\r\n:]*)[^\r\n]*\r\n"; "i").host | ascii_downcase) as $host
  | routes[$host]
  | if . then {remote: .} else {close: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"} end;

# What has no id is a notification, and gets no answer.
select(.id) | {jsonrpc: "2.0", id} +
  if .method == "proxy" then {result: (first(.params.data | verdict) // null)}
  elif .method == "hello" then {result: {protocol: 1, name: "route.jq", methods: ["proxy"]}}
  else {error: {code: -32601, message: "method not found"}} end
