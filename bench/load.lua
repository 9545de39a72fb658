-- wrk's part: sends what a file says in turn, from anywhere in it on, again and again.
--
-- wrk … -s load.lua URL -- FILE [OUTPUT]
--   FILE    a request a line: its path and, behind a tab, its JSON body, if any
--   OUTPUT  where to write the answers that name a stream, one a line; then all is sent once, from the beginning
--
-- Says "ready" when the file is read, and at the end in JSON what was measured.

local requests, sent, answered, output = {}, 0, 0, nil
local harmless

local function say(count, failed, seconds, p50_us, p99_us)
  io.write(string.format('\n{"requests":%d,"errors":%d,"seconds":%.6f,"p50_ms":%.3f,"p99_ms":%.3f}\n',
    count, failed, seconds, p50_us / 1e3, p99_us / 1e3))
end

local function take(_, _, body)
  if not body:find('"stream_id"', 1, true) then return end
  output:write(body, '\n')
  answered = answered + 1
  if answered < #requests then return end
  -- wrk itself would wait for the end of its time.
  output:close()
  say(answered, 0, 0, 0, 0)
  os.exit(0)
end

function init(args)
  for line in io.lines(args[1]) do
    local path, body = line:match('^(%S+)\t?(.*)$')
    local headers = {['Content-Type'] = body ~= '' and 'application/json' or nil}
    for name, value in pairs(wrk.headers) do headers[name] = value end -- those of wrk's -H
    requests[#requests + 1] = wrk.format('POST', path, headers, body ~= '' and body or nil)
  end
  if not args[2] then
    math.randomseed(os.time())
    sent = math.random(#requests)
  else
    sent = -1 -- wrk asks for one request beforehand, to look at it, and does not send it
    output = io.open(args[2], 'w')
    harmless = wrk.format('GET', '/livez')
    response = take
  end
  io.stdout:write('ready\n')
  io.stdout:flush()
end

function request()
  sent = sent + 1
  if output and sent > #requests then return harmless end
  return requests[(sent - 1) % #requests + 1]
end

function done(summary, latency)
  local errors = summary.errors
  local failed = errors.connect + errors.read + errors.write + errors.status + errors.timeout
  say(summary.requests, failed, summary.duration / 1e6, latency:percentile(50), latency:percentile(99))
end
