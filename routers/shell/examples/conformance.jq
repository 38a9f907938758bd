# The router of the protocol's transcripts:  tproxy --router 'jq -c --unbuffered -f conformance.jq'

# Paths are text, not bytes: what came as one character for each byte is decoded.
def from_utf8:
  reduce explode[] as $byte ({text: [], code: 0, more: 0};
    if .more > 0 then
      .code = .code * 64 + $byte % 64 | .more -= 1 | if .more == 0 then .text += [.code] else . end
    elif $byte < 128 then .text += [$byte]
    elif $byte < 224 then .code = $byte % 32 | .more = 1
    elif $byte < 240 then .code = $byte % 16 | .more = 2
    else .code = $byte % 8 | .more = 3 end)
  | .text | implode;

def verdict:
  .data as $data
  | ($data | split("\n")) as $lines
  | $lines[0] as $line
  | if .state == {n: 1} then {close: ("n=1 " + $data)}
    elif ($lines | length) < 2 then null
    elif $line | test("^remote .") then {remote: $line[7:]}
    elif $line == "close" then {close: true}
    elif $line | startswith("bye ") then {close: ($line[4:] + "\n")}
    elif $line | test("^file .") then {file: ($line[5:] | from_utf8)}
    elif $line | test("^wait [1-9][0-9]*$") then
      ($line[5:] | tonumber) as $count
      | if ($data | length) < $count then {wait: $count} else {close: $data} end
    elif $line == "state" then {reply: "more\n", consume: 6, state: {n: 1}}
    else {close: "?\n"} end;

select(.id) | {jsonrpc: "2.0", id} +
  if .method == "hello" then
    {result: {protocol: 1, name: "conformance", methods: ["proxy", "proxy_error", "cancel", "shutdown"], max_in_flight: 64}}
  elif .method == "proxy" and (.params.data | startswith("error\n")) and .params.state == null then
    {error: {code: -32000, message: "asked to fail"}}
  elif .method == "proxy" then {result: (.params | verdict)}
  elif .method == "proxy_error" then {result: {close: ("502 " + .params.type + "\n")}}
  else {error: {code: -32601, message: "method not found"}} end
