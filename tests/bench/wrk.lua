-- With arguments, a pattern and a number: asks for one of so many places below the URL, by chance.
init = function(args)
  local pattern, count = args[1], tonumber(args[2])
  if pattern then
    request = function()
      return wrk.format(nil, wrk.path .. pattern:format(math.random(0, count - 1)))
    end
  end
end

-- Tells wrk's findings in one line of JSON; times in microseconds.
done = function(summary, latency, requests)
  local errors = summary.errors
  io.write(string.format(
    '{"requests": %d, "duration": %d, "failed": %d, "p50": %d, "p99": %d}\n',
    summary.requests, summary.duration,
    errors.connect + errors.read + errors.write + errors.status + errors.timeout,
    latency:percentile(50), latency:percentile(99)))
end
