"""Damage to the scripts and the modules that the quick suite must notice: `scripts/mutate.py` does it and runs that.

A mutant that survives is a test that is missing.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

PACKAGE: Final = "streamlimit"


@dataclass(frozen=True, slots=True)
class Mutant:
    """One piece of damage: in each of the files that has it, `old` becomes `new`."""

    name: str
    where: str
    """A file of the package, or a pattern: what several scripts share is damaged in all of them."""
    old: str
    new: str

    def damage(self, root: Path) -> None:
        """Do it to the package under `root`, or raise ValueError where there is nothing left to damage."""
        found = [path for path in (root / PACKAGE).glob(self.where) if self.old in path.read_text()]
        if not found:
            raise ValueError(f"{self.name}: {self.where} has no {self.old!r}; mend tests/mutants.py")
        for path in found:
            path.write_text(path.read_text().replace(self.old, self.new, 1))


ADMIT, RESUME, RELEASE = "lua/admit.lua", "lua/resume.lua", "lua/release.lua"
HEARTBEAT, TRIM, LIST, EPOCH, COUNT, GET, ALL_LUA = (
    "lua/heartbeat.lua",
    "lua/trim.lua",
    "lua/list.lua",
    "lua/epoch.lua",
    "lua/count.lua",
    "lua/get.lua",
    "lua/*.lua",
)
TRACKER, STORE, STREAM_ID, HANDLERS = "tracker.py", "store.py", "stream_id.py", "handlers.py"
ATTEMPTS, CALLS, EPOCHS, NODE, OUTAGES = "attempts.py", "calls.py", "epochs.py", "node.py", "outages.py"
TOKENS, JWKS, RATE, SENTINELS = "tokens.py", "jwks.py", "admission_rate.py", "sentinels.py"
OUTAGE, RULES, DRAIN, DAMAGE = "outage.py", "rules.py", "drain.py", "damage.py"
SECRETS = "lua/secrets.lua"
CONNECTION, HEADS, BODIES = "http_connection.py", "http_heads.py", "http_bodies.py"
LIMITS, REFUSALS = "connection_limits.py", "refusals.py"
LANE, WIRE = "lane.py", "wire.py"

_FULL = 'health.py: `if 0 < int(told.get("maxmemory", 0)) <= int(told.get("used_memory", 0)):`: 0 becomes 1'
EQUIVALENT: Final = {
    _FULL: "no server has one byte of memory",
    f"{_FULL} (2)": "where the limit is not told, neither is what is used, and 1 is above 0",
    f"{_FULL} (3)": "no server has one byte of memory",
    'health.py: `if not int(told.get("aof_enabled", 1)):`: 1 becomes 2': "both say that there is a file",
}
"""Generated mutants (tests/generated.py) that no test can notice, each with the reason."""

MUTANTS: Final = (
    # The secrets in use.
    Mutant("a stranger makes itself the rule", SECRETS, "if has_epoch and shared then", "if has_epoch then"),
    Mutant("a report makes an epoch", SECRETS, "if has_epoch and shared then", "if shared then"),
    Mutant("a secret is never forgotten", SECRETS, "last + kept <= now", "false"),
    Mutant("a secret is reported again and again", SECRETS, ">= kept / 10", ">= 0"),
    Mutant("the first report warns", SECRETS, "shared = shared or #others == 0", ""),
    Mutant("nobody reports by himself", "known_secrets.py", "            await self.report()", "            pass"),
    Mutant("a short secret in the data directory", "secret.py", "len(secret) < MIN_SECRET_LENGTH", "not secret"),
    Mutant("a secret stays open to others", "secret.py", "mode & ~_OTHERS", "mode"),
    # The count and the limit.
    Mutant("nobody is refused", ADMIT, "local over = #live - #victims >= limit", "local over = false"),
    Mutant("refused at one more than the limit", ADMIT, "#victims >= limit", "#victims > limit"),
    Mutant("the last live stream is not counted", ALL_LUA, "for seat = 1, #KEYS - 3 do", "for seat = 1, #KEYS - 4 do"),
    Mutant(
        "the reading stops one stream early", ALL_LUA, "if unread == 0 then break end", "if unread == 1 then break end"
    ),
    Mutant("a limit above the seats is not clamped", ADMIT, "math.min(limit, seats))", "limit)"),
    Mutant(
        "a negative limit is not clamped", LIST, "math.max(0, math.min(limit, #KEYS - 3))", "math.min(limit, #KEYS - 3)"
    ),
    Mutant(
        "the default goes before the record",
        ADMIT,
        "whole_number(redis.call('HGET', KEYS[1], 'limit')) or tonumber(default)",
        "tonumber(default) or whole_number(redis.call('HGET', KEYS[1], 'limit'))",
    ),
    Mutant("the override is ignored", ADMIT, "local limit = tonumber(override) or", "local limit ="),
    Mutant("unknown users are admitted with 3", ADMIT, "then return {'unknown_user'} end", "then limit = 3 end"),
    Mutant(
        "a limit that is no number counts",
        ALL_LUA,
        "tonumber(string.match(text, '^%s*(-?%d+)%.?%d*%s*$'))",
        "tonumber(text)",
    ),
    Mutant(
        "REF carries a limit that is not the user's",
        ADMIT,
        "if tonumber(ref_limit) ~= limit then return {'limit', limit} end",
        "",
    ),
    # The seat.
    Mutant("the second seat is taken first", ADMIT, "local free_seat = 1", "local free_seat = 2"),
    Mutant(
        "a seat that is taken is given away",
        ADMIT,
        "if stream.seat == free_seat then",
        "if stream.seat > free_seat then",
    ),
    # The TTL.
    Mutant("an admission has no TTL", ADMIT, "redis.call('PEXPIRE', KEYS[seat + 3], ttl)", ""),
    Mutant(
        "a repeated admission is told the old end",
        ADMIT,
        "    stream.pttl = ttl\n    local over",
        "    local over",
    ),
    Mutant("a heartbeat does not refresh", HEARTBEAT, "redis.call('PEXPIRE', key, ttl)", ""),
    Mutant(
        "every heartbeat writes",
        HEARTBEAT,
        "if pttl < fresh or pttl > ttl then",
        "if true then",
    ),
    Mutant("a heartbeat writes only at the end", HEARTBEAT, "ttl - math.min(1000, ttl / 20)", "100"),
    Mutant("a TTL that is too long stays", HEARTBEAT, " or pttl > ttl then", " then"),
    Mutant("a resumed stream has no TTL", RESUME, "redis.call('PEXPIRE', KEYS[seat + 3], ttl)\n  return", "return"),
    Mutant(
        "a heartbeat in another seat does not refresh", RESUME, "redis.call('PEXPIRE', KEYS[stream.seat + 3], ttl)", ""
    ),
    Mutant("a repeated admission does not refresh", ADMIT, "redis.call('PEXPIRE', KEYS[stream.seat + 3], ttl)", ""),
    Mutant("ended streams are remembered for ever", ALL_LUA, "redis.call('PEXPIRE', KEYS[2], 600000)", ""),
    Mutant("ended streams are remembered for a minute", ALL_LUA, "KEYS[2], 600000)", "KEYS[2], 60000)"),
    # Identity and signatures.
    Mutant("a heartbeat does not compare REF", HEARTBEAT, "fields[1] == ARGV[2 * i] and ", ""),
    Mutant("a heartbeat does not compare SIG", HEARTBEAT, " and fields[2] == ARGV[2 * i + 1]", ""),
    Mutant(
        "resume does not compare REF",
        RESUME,
        "if stream.ref == ref and stream.sig == sig then",
        "if stream.sig == sig then",
    ),
    Mutant(
        "resume does not compare SIG",
        RESUME,
        "if stream.ref == ref and stream.sig == sig then",
        "if stream.ref == ref then",
    ),
    Mutant("an invented stream resumes", RESUME, "if genuine == '' then return {'unknown'} end", ""),
    Mutant("release does not compare SIG", RELEASE, "sig ~= '' and fields[2] ~= sig and genuine == ''", "false"),
    Mutant("release refuses another genuine SIG", RELEASE, " and genuine == '' then return 0", " then return 0"),
    Mutant("release of an invented stream is recorded", RELEASE, "if genuine == '1' and redis", "if redis"),
    Mutant("every signature is genuine", STREAM_ID, "        genuine = False\n", "        genuine = True\n"),
    Mutant("the signature does not cover the user", STREAM_ID, "\\0{user_id}\\0{ref}", "\\0{ref}"),
    Mutant("the signature does not cover the key prefix", STREAM_ID, 'f"{self._key_prefix}\\0', 'f"\\0'),
    Mutant(
        "old secrets are not accepted", STREAM_ID, "for secret in self._secrets:", "for secret in self._secrets[:1]:"
    ),
    Mutant("the last secret signs", STREAM_ID, "self._secrets[0], user_id", "self._secrets[-1], user_id"),
    Mutant(
        "a signature counts by its beginning",
        STREAM_ID,
        "stream_id.ref), stream_id.sig)",
        "stream_id.ref)[:4], stream_id.sig[:4])",
    ),
    # Repetition.
    Mutant("the same REF is admitted twice", ADMIT, "if stream.ref == ref or request", "if request"),
    Mutant(
        "the Idempotency-Key is ignored",
        ADMIT,
        "stream.ref == ref or request ~= '' and stream.request == request",
        "stream.ref == ref",
    ),
    Mutant(
        "admissions without a key are all the same",
        ADMIT,
        "request ~= '' and stream.request == request",
        "(stream.request or '') == request",
    ),
    Mutant("the Idempotency-Key is not stored", ADMIT, "'content_id', 'request'})", "'content_id'})"),
    Mutant(
        "an ended admission comes back",
        ADMIT,
        "if ended then return why_ended(ended) end",
        "",
    ),
    Mutant("a repetition forgets what the first ended", ADMIT, "ended_by(stream.ref, stream.started_at)", "{}"),
    Mutant(
        "a repetition tells of an older admission",
        ADMIT,
        "ended_by(stream.ref, stream.started_at)",
        "ended_by(stream.ref, 0)",
    ),
    Mutant("a repetition tells what others ended", ALL_LUA, "string.match(whom, '[^.]*$') == by and", ""),
    Mutant(
        "a repetition tells it in another order",
        ALL_LUA,
        "return b.reason == 'evicted' end",
        "return a.reason == 'evicted' end",
    ),
    Mutant("a repetition tells another end", ALL_LUA, "stream.pttl = stream.pttl - stream.age", ""),
    Mutant(
        "a repetition is not over the limit",
        ADMIT,
        "local over = enforce == '' and #live > limit and 1 or 0",
        "local over = 0",
    ),
    Mutant(
        "a repetition is over a lowered limit",
        ADMIT,
        "local over = enforce == '' and #live > limit",
        "local over = #live > limit",
    ),
    Mutant("an end is repeated as another one", TRIM, "if done[1] then return {now, done} end", ""),
    Mutant(
        "every end is the same operation",
        CALLS,
        "operation = token_urlsafe(_OPERATION_BYTES)",
        'operation = "operation"',
    ),
    Mutant("a lost deletion was none", TRACKER, " or call.in_doubt", ""),
    # What ended stays ended.
    Mutant(
        "nothing is remembered of ended streams",
        ALL_LUA,
        "local function record_ended(ref, reason, details)",
        "local function record_ended(ref, reason, details)\n  if true then return end",
    ),
    Mutant(
        "a released stream is not remembered", RELEASE, "    record_ended(ref, reason)\n    return 1", "    return 1"
    ),
    Mutant(
        "a released stream that was lost is not remembered",
        RELEASE,
        "== 0 then record_ended(ref, reason) end",
        "== 0 then end",
    ),
    Mutant(
        "a second release changes the reason",
        RELEASE,
        "if genuine == '1' and redis.call('HEXISTS', KEYS[2], ref) == 0 then",
        "if genuine == '1' then",
    ),
    Mutant("the last seat is not released", RELEASE, "for seat = 1, #KEYS - 3 do", "for seat = 1, #KEYS - 4 do"),
    Mutant(
        "terminating what is not live is recorded",
        RELEASE,
        "if genuine == '1' and redis",
        "if (genuine == '1' or sig == '') and redis",
    ),
    Mutant("release leaves the stream live", RELEASE, "redis.call('DEL', KEYS[seat + 3]) == 0", "false"),
    Mutant(
        "a released stream resumes",
        RESUME,
        "if ended then return why_ended(ended) end",
        "",
    ),
    Mutant("the reason is lost", RESUME, "string.match(entry, '^%S+') or 'expired'", "'expired'"),
    Mutant("nobody is told by whom", RESUME, "by or false, by and by_name", "false, by and by_name"),
    Mutant("nobody is told whose device it was", RESUME, "by and by_name ~= '' and by_name or false", "false"),
    Mutant("an operation is taken for a stream", ALL_LUA, "'^%S+\\t(%d+%.[^\\t]+)", "'^%S+\\t([^\\t]+)"),
    Mutant(
        "a name written by hand breaks a line apart",
        ALL_LUA,
        "string.gsub(words[i] or '', '%c', ' ')",
        "words[i] or ''",
    ),
    Mutant(
        "a stream that was told expired may come back",
        RESUME,
        "if dry_run == '' then record_ended(ref, reason) end",
        "",
    ),
    Mutant("the newest end is forgotten first", ALL_LUA, "at < oldest_at then oldest", "at > oldest_at then oldest"),
    Mutant(
        "any number of ends is remembered",
        ALL_LUA,
        "if redis.call('HLEN', KEYS[2]) > 64",
        "if redis.call('HLEN', KEYS[2]) > 6400",
    ),
    Mutant("what a full memory forgot resumes", RESUME, "forgotten = minted <= oldest_at", "forgotten = false"),
    Mutant(
        "a forged id is looked for in all seats",
        TRACKER,
        "if not self._signer.is_genuine(user_id, stream_id):\n            return UnknownStream()",
        "",
    ),
    Mutant(
        "a forged id is left to the application",
        TRACKER,
        "if self._signer.is_genuine(user_id, stream_id) else",
        "if True else",
    ),
    Mutant("an end is remembered for ever", "recent_ends.py", "if monotonic() < until:", "if until:"),
    Mutant(
        "another signature of an ended stream is told of its end", "recent_ends.py", "*stream_id[1:]", "*stream_id[1:2]"
    ),
    Mutant("ends are remembered without bound", "recent_ends.py", "self._ends.clear()", "pass"),
    Mutant("undoing ends a stream that a repetition found", RELEASE, "if keep_live == '1' or ", "if "),
    Mutant("undoing leaves every stream live", TRACKER, "keep_live=retry)", "keep_live=True)"),
    Mutant("undoing leaves no stream live", TRACKER, "keep_live=retry)", "keep_live=False)"),
    Mutant("what was admitted in the end is undone", TRACKER, "if call.in_doubt and not settled:", "if call.in_doubt:"),
    Mutant("an abandoned admission keeps its seat", HANDLERS, "and await request.is_disconnected()", "and False"),
    Mutant("an abandoned admission with a key is undone", HANDLERS, "if key is None and body", "if body"),
    Mutant("an abandoned device's is undone", HANDLERS, "body.device_id is None and await", "await"),
    # Whose seat.
    Mutant(
        "the device's own stream is not replaced",
        ADMIT,
        "if device_id ~= '' and stream.device_id == device_id then own = stream end",
        "",
    ),
    Mutant(
        "streams without a device replace each other",
        ADMIT,
        "if device_id ~= '' and stream.device_id == device_id",
        "if (stream.device_id or '') == device_id",
    ),
    Mutant("take_over is ignored", ADMIT, "    named = stream\n", ""),
    Mutant("a replaced stream is not ended", ADMIT, "redis.call('DEL', KEYS[stream.seat + 3])", ""),
    Mutant("what was evicted is not told", ADMIT, "freed[i] = {row(stream), reason}", ""),
    Mutant("take_over goes before the own device", ADMIT, "if own then\n", "if own and not named then\n"),
    Mutant("the wrong reason is told", ADMIT, "{{named, 'taken_over'}}", "{{named, 'replaced'}}"),
    Mutant("a refusal tells the limit as live", ADMIT, "{'refused', now, #live,", "{'refused', now, limit,"),
    Mutant("eviction is the default", ADMIT, "if on_limit == 'evict' and limit > 0 then", "if limit > 0 then"),
    Mutant("evict does nothing", ADMIT, "if on_limit == 'evict' and limit > 0 then", "if false then"),
    Mutant(
        "evict empties limit 0 in shadow mode",
        ADMIT,
        "if on_limit == 'evict' and limit > 0 then",
        "if on_limit == 'evict' then",
    ),
    Mutant(
        "evict does not help a device above a lowered limit",
        ADMIT,
        "if on_limit == 'evict' and limit > 0 then",
        "if on_limit == 'evict' and limit > 0 and not own then",
    ),
    Mutant(
        "all are evicted where one would do",
        ADMIT,
        "if #live - #victims < limit then break end",
        "if #live == #victims then break end",
    ),
    Mutant(
        "one too few is evicted",
        ADMIT,
        "if #live - #victims < limit then break end",
        "if #live - #victims <= limit then break end",
    ),
    Mutant(
        "whose seat is taken is evicted, too",
        ADMIT,
        "if not victims[1] or stream ~= victims[1][1] then",
        "if true then",
    ),
    Mutant(
        "the newest is evicted", ALL_LUA, "return a.started_at < b.started_at", "return a.started_at > b.started_at"
    ),
    Mutant("stale streams are evicted last", ALL_LUA, "return a_stale end", "return b_stale end"),
    Mutant("the higher seat is evicted", ALL_LUA, "return a.seat < b.seat", "return a.seat > b.seat"),
    Mutant(
        "streams end although the admission is refused",
        ADMIT,
        "local over = #live - #victims >= limit\n",
        "local over = #live - #victims >= limit\n"
        "for _, stream in ipairs(victims) do redis.call('DEL', KEYS[stream.seat + 3]) end\n",
    ),
    # The record.
    Mutant("terminate all spares one", TRIM, "for i = 1, #live - keep do", "for i = 1, #live - keep - 1 do"),
    Mutant("a new limit is not stored", TRIM, "redis.call('HSET', KEYS[1], 'limit', limit)", ""),
    Mutant(
        "streams that were terminated are not remembered",
        TRIM,
        "if live[i].ref then record_ended(live[i].ref, reason, details(live[i], operation)) end",
        "",
    ),
    Mutant(
        "a new limit that ends streams is not stored",
        TRIM,
        "if limit ~= '' then",
        "if limit ~= '' and #freed == 0 then",
    ),
    Mutant(
        "every new limit ends the excess",
        TRACKER,
        "keep = limit if end_excess else self.rules.max_limit",
        "keep = limit",
    ),
    # Recovery.
    Mutant("a loss opens no recovery", EPOCH, "if known ~= '' and known ~= id then", "if false then"),
    Mutant(
        "new streams do not wait in recovery", ADMIT, "elseif #live < limit and enforce == '1' and", "elseif false and"
    ),
    Mutant(
        "evict is given a free seat in recovery",
        ADMIT,
        "elseif #live < limit and",
        "elseif #live < limit and on_limit ~= 'evict' and",
    ),
    Mutant(
        "a device waits in recovery for its own seat",
        ADMIT,
        "if own then\n",
        "if own and now > recovering_until then\n",
    ),
    Mutant("the last seat is given in recovery", ADMIT, "elseif #live < limit and", "elseif #live < limit - 1 and"),
    Mutant(
        "shadow mode waits in recovery",
        ADMIT,
        "elseif #live < limit and enforce == '1' and",
        "elseif #live < limit and",
    ),
    Mutant("an admission does not compare the epoch", ADMIT, "(stored[1] ~= epoch or ", "("),
    Mutant("a heartbeat that resumes does not compare the epoch", RESUME, "(stored[1] ~= epoch or ", "("),
    Mutant("an admission decides though it is late", ADMIT, " or late) then", ") then"),
    Mutant("a resuming decides though it is late", RESUME, " or late) then", ") then"),
    Mutant("nothing is ever late", STORE, "*args, valid_until]", "*args, '']"),
    Mutant("an end comes though it is late", TRIM, "then return {'late'} end", "then end"),
    Mutant("a deletion comes though it is late", "lua/delete.lua", "then return {'late'} end", "then end"),
    Mutant("an attempt outlives its time-out", STORE, "min(given_up_at, deadline)", "deadline"),
    Mutant("attempts overtake each other", STORE, "if call.in_turn and call.pending_until > clock():", "if False:"),
    Mutant("what was late is not repeated", STORE, '(["epoch"], ["late"])', '(["epoch"],)'),
    Mutant("an admission waits for a recovery in the far future", ADMIT, " or recovering_until > now + ttl", ""),
    Mutant("a recovery in the far future stays", EPOCH, "recovering_until = math.min(recovering_until, now + ttl)", ""),
    Mutant("a first start opens recovery", EPOCH, "if known ~= '' and known ~= id then", "if known ~= id then"),
    Mutant("an outage opens no recovery", EPOCH, "outage == '1' and (id or known ~= '')", "false"),
    Mutant(
        "recovery after an outage ends early",
        EPOCH,
        "recovering_until = math.max(recovering_until, now + ttl) end",
        "recovering_until = math.max(recovering_until, now + ttl / 2) end",
    ),
    Mutant(
        "a recovery ends early",
        EPOCH,
        "recovering_until = math.max(recovering_until, since + ttl)",
        "recovering_until = since + ttl / 3",
    ),
    Mutant("nothing resumes in recovery", RESUME, "math.max(young_until, recovering_until)", "young_until"),
    Mutant("an expired stream resumes", RESUME, "if now < lost_until and", "if true and"),
    Mutant("a young stream does not resume", RESUME, "math.max(young_until, recovering_until)", "recovering_until"),
    Mutant(
        "a stream from the future resumes",
        RESUME,
        "minted - now < 1000 and math.min(minted, now) + ttl or 0",
        "minted + ttl",
    ),
    Mutant("a resumed stream counts as new", RESUME, "string.format('%.0f', minted)", "string.format('%.0f', now)"),
    Mutant("resuming passes the limit", RESUME, "#live < math.min(limit, seats) then", "#live < seats then"),
    Mutant("resuming takes a seat that is taken", RESUME, "if taken[seat] or seat < 1", "if seat < 1"),
    Mutant(
        "resuming ignores the user's limit",
        RESUME,
        "whole_number(redis.call('HGET', KEYS[1], 'limit')) or tonumber(ref_limit)",
        "tonumber(ref_limit)",
    ),
    # Shadow mode and dry runs.
    Mutant("shadow mode refuses", ADMIT, "if over and (enforce == '1' or seat > seats) then", "if over then"),
    Mutant("shadow mode gives a seat that there is not", ADMIT, "(enforce == '1' or seat > seats)", "(enforce == '1')"),
    Mutant("shadow mode does not say so", ADMIT, "over and 1 or 0}", "0}"),
    Mutant("shadow mode is not counted", TRACKER, "self.shadow_admissions += 1", "pass"),
    Mutant(
        "a check takes a seat",
        ADMIT,
        "if dry_run == '1' then return {'admissible', now, #live, limit} end\nif tonumber",
        "if tonumber",
    ),
    Mutant(
        "a look brings a stream back",
        RESUME,
        "if dry_run == '1' then return {'provisional'",
        "if false then return {'provisional'",
    ),
    Mutant("a look keeps a stream live", RESUME, "    if dry_run == '' then\n", "    if true then\n"),
    Mutant(
        "who finds no seat is told that it expired",
        RESUME,
        "and 'limit_reached' or 'expired'",
        "and 'expired' or 'expired'",
    ),
    # The tracker and the store.
    Mutant("an outage lets everybody in", OUTAGE, "if not self._allows(error) or limit == 0:", "if False:"),
    Mutant("an error that is no outage lets everybody in", OUTAGE, " and is_outage(error)", ""),
    Mutant("an outage keeps invented streams", OUTAGE, " and self._signer.is_genuine(user_id, stream_id)\n", "\n"),
    Mutant("an unknown outcome is not undone", TRACKER, "if call.in_doubt and not settled:", "if False:"),
    Mutant("a lost answer is not in doubt", STORE, "            call.in_doubt = True", "            return"),
    Mutant("a lost script is not loaded again", NODE, "if isinstance(reply, NoScriptError)]", "if False]"),
    Mutant("a failed call is not repeated", ATTEMPTS, "if not repeatable or clock() + pause >= deadline:", "if True:"),
    Mutant("an answer is waited for beyond the budget", NODE, "PATIENCE * budget_seconds", "60 * budget_seconds"),
    Mutant(
        "a long outage opens no recovery",
        EPOCHS,
        'fresh, self._ttl_ms, "1" if outage else ""]',
        'fresh, self._ttl_ms, ""]',
    ),
    Mutant(
        "an answered read ends an outage",
        ATTEMPTS,
        "                return reply\n",
        "                self._outages.end((slot,))\n                return reply\n",
    ),
    Mutant("an outage never ends", OUTAGES, "self.since.pop(slot, None)", "pass"),
    Mutant(
        "an outage begins anew with each failure", OUTAGES, "self.since.setdefault(slot, now)", "self.since[slot] = now"
    ),
    Mutant(
        "an outage is noted for one slot only",
        ATTEMPTS,
        "self._outages.begin((slot, *others))",
        "self._outages.begin((slot,))",
    ),
    Mutant(
        "a slot that nobody serves takes its server away", ATTEMPTS, " and not isinstance(error, ClusterDownError)", ""
    ),
    Mutant("a slot that nobody serves stops every meeting", EPOCHS, "found.unserved[slot] = error", "raise"),
    Mutant("a probe that was refused ends the outage", EPOCHS, " or len(found.unserved) >= len(slots):", ":"),
    Mutant("MISCONF is no outage", ATTEMPTS, ', "MISCONF "', ""),
    Mutant(
        "each flap is told to be back",
        OUTAGES,
        "            self._calm.cancel()\n            self._calm = None",
        "            pass",
    ),
    Mutant("the complaint is not told again", OUTAGES, '        self._complaint = ("", -math.inf)\n\n\ndef', "\n\ndef"),
    Mutant("scripts run by SCRIPT LOAD or not at all", NODE, "self._may_load_scripts = False", "pass"),
    Mutant("what a replaced server says is noted", EPOCHS, "if not self._topology.slots(node):", "if False:"),
    Mutant("an older failover counts", SENTINELS, "latest = max((", "latest = min(("),
    Mutant("one Sentinel that hears of the primary is enough", SENTINELS, "named.quorum + 1", "named.quorum"),
    Mutant("a primary about to be replaced is in touch", SENTINELS, " and math.inf not in silences", ""),
    Mutant("a promoted replica is not followed", SENTINELS, "is_well=promoted or ", "is_well="),
    Mutant(
        "the hint of a seat beyond the last is followed",
        CALLS,
        "min(stream_id.seat, self._rules.max_limit)",
        "stream_id.seat",
    ),
    Mutant("all players send heartbeats together", RULES, "(0.85 + 0.1 * random.random())", "0.9"),
    Mutant(
        "a resumed stream's new seat is not told", TRACKER, 'f"{stream.stream_ref}.{stream_id.sig}"', "str(stream_id)"
    ),
    # Who may do what.
    Mutant("a player acts for everybody", "callers.py", "self.user_id == user_id", "True"),
    Mutant("a role is not looked at", "dispatch.py", "if caller.role not in operation.roles:", "if False:"),
    Mutant("nobody is asked", "dispatch.py", "if operation.roles and not (", "if False and not ("),
    Mutant("a player says its limit", "handlers.py", "if body.limit is not None:", "if False:"),
    Mutant("the limit in a token is ignored", "handlers.py", "body.limit = caller.limit", "body.limit = None"),
    Mutant("a token may be for others", TOKENS, "audience=self._audience,", 'options={"verify_aud": False},'),
    Mutant("a token may be from others", TOKENS, "issuer=self._issuer,", ""),
    Mutant("a token lasts for ever", TOKENS, '["exp", "aud", "iss", "sub"]', '["aud", "iss", "sub"]'),
    Mutant("a token names any user", TOKENS, 'check_user_id(claims["sub"])', 'claims["sub"]'),
    Mutant(
        "any key of the set will do",
        "token_keys.py",
        "self._keys.get(kid) if kid is not None",
        "[*self._keys.values()][0] if 1",
    ),
    Mutant("a short key is taken", "token_keys.py", " and not key.Algorithm.check_key_length(key.key)", ""),
    Mutant("half a private key is taken", "token_keys.py", ' or "d" in member', ""),
    Mutant("only the first API key is known", "api_keys.py", "in self._callers:", "in self._callers[:1]:"),
    Mutant("invented keys make us ask and ask", JWKS, "< self._pause_seconds:", "< 0:"),
    Mutant(
        "keys are lost with their server",
        JWKS,
        "self._complaint = complaint",
        "self._complaint, self._keys = complaint, {}",
    ),
    Mutant("a key set may be huge", JWKS, "if len(body) > _MAX_BYTES:", "if False:"),
    Mutant("a strange server sends us elsewhere", JWKS, "follow_redirects=False", "follow_redirects=True"),
    Mutant("a token without keys is wrong", JWKS, "raise KeysUnavailable(", "return ()  # ("),
    # What an edge is told.
    Mutant("an invented stream is seen", GET, "fields[2] == ARGV[2 * i] then", "true then"),
    Mutant("one key of a wrong type blinds all", GET, "redis.pcall('HMGET'", "redis.call('HMGET'"),
    Mutant(
        "a stream of a loss is not looked for", TRACKER, "self._store.run(call, deadline)", "self._store.run(call, 0)"
    ),
    # What somebody overwrote by hand.
    Mutant("a damaged key is told as an outage", DAMAGE, "if is_damage(refusal) else None", "if False else None"),
    Mutant("the log names the user of a damaged key", DAMAGE, "self._name_user(user[0])", "user[0]"),
    Mutant("a damaged key fills the log", DAMAGE, "-_REPEAT_SECONDS) < _REPEAT_SECONDS:", "0) < 0:"),
    Mutant("damaged seats are not repaired", TRIM, "for i = 4, #KEYS do drop_damaged(KEYS[i]) end", ""),
    Mutant("damaged ends are not repaired", TRIM, "  drop_damaged(KEYS[2])", ""),
    Mutant("a damaged record is not repaired", TRIM, "  drop_damaged(KEYS[1])", ""),
    Mutant("a damaged seat holds up a new limit", TRIM, "if keep < #KEYS - 3 then", "if true then"),
    Mutant(
        "a damaged epoch is not repaired", EPOCH, "local was_damaged = is_damaged(stored)", "local was_damaged = false"
    ),
    Mutant("a damaged epoch is no loss", EPOCH, "if was_damaged or outage", "if outage"),
    Mutant("a damaged epoch fails an admission", ADMIT, "redis.pcall('HMGET', KEYS[3]", "redis.call('HMGET', KEYS[3]"),
    Mutant("a damaged epoch fails a heartbeat", RESUME, "redis.pcall('HMGET', KEYS[3]", "redis.call('HMGET', KEYS[3]"),
    Mutant("a damaged count is not repaired", COUNT, "if type(count) == 'table' then", "if false then"),
    Mutant("a damaged seat keeps others from ending", RELEASE, "redis.pcall('HMGET'", "redis.call('HMGET'"),
    Mutant(
        "a hash without a ref cannot be ended",
        ALL_LUA,
        "return not (held and string.find(",
        "return false and (string.find(",
    ),
    Mutant(
        "a seat names a stream with a ref", ALL_LUA, "return not (held and string.find(", "return true or (string.find("
    ),
    Mutant("an empty seat can be ended", RELEASE, "KEYS[seat + 3]) == 0 then", "KEYS[seat + 3]) < 0 then"),
    Mutant(
        "a start that is no number has no order",
        ALL_LUA,
        "tonumber(string.match(fields[3] or '', '^%d+$')) or 0,",
        "tonumber(fields[3]) or 0,",
    ),
    # How often.
    Mutant("one admission too many", COUNT, "count > tonumber(ARGV[2])", "count > tonumber(ARGV[2]) + 1"),
    Mutant("a count of admissions has no end", COUNT, "redis.call('PEXPIRE', KEYS[1], ARGV[3])", ""),
    Mutant("who asks again and again is let in", TRACKER, "return TooManyAdmissions(wait_ms)", "pass"),
    Mutant("a process tells the store nothing", RATE, "if asked < self._step:", "if asked < 10**9:"),
    Mutant("a process forgets who is to wait", RATE, "self._waiting[user_id] = now + wait_ms / 1000", "pass"),
    Mutant("a wrong key is looked at again and again", "failed_credentials.py", "0 < self._most <= count", "False"),
    Mutant("strangers fill the memory", "failed_credentials.py", "if len(self._failures) > _REMEMBERED:", "if False:"),
    # The end of a process.
    Mutant("a drain is left out", DRAIN, "if number == signal.SIGTERM and drain_seconds", "if False"),
    Mutant("a second signal changes nothing", DRAIN, "if counts and self:", "if False:"),
    Mutant("a worker takes one signal for two", DRAIN, "if counts and self:", "if self:"),
    Mutant("a request in the buffer is lost", DRAIN, " and not _unread_bytes(connection.transport)", ""),
    Mutant("half a head is lost", DRAIN, " or connection.has_unread or", " or"),
    Mutant("pipelined requests are lost", "heartbeat_protocol.py", "if not self.has_unread:", "if True:"),
    Mutant("queued connections are reset", DRAIN, "        connection.settimeout(0)", "        return"),
    Mutant("a draining process is ready", "handlers.py", "raise problems.draining()", "pass"),
    Mutant("a draining process is not seen to be one", "handlers.py", 'status="draining" if', 'status="alive" if'),
    Mutant("a drain sends nobody away", "heartbeat_protocol.py", "if self.draining:", "if False:"),
    Mutant("a new connection in a drain is kept", "heartbeat_protocol.py", "self.draining = state.draining", "pass"),
    Mutant("the public port has everything", "ports.py", "return port is not None and (", "return False and ("),
    # Web pages where there are no keys, and what others wrote.
    Mutant("a page of another origin is taken", "browser_guard.py", "return site not in _OWN_SITE", "return False"),
    Mutant("an older browser is not asked", "browser_guard.py", "return origin is not None and", "return False and"),
    Mutant(
        "one good host is enough",
        "browser_guard.py",
        "not all(map(self._accepts_host",
        "not any(map(self._accepts_host",
    ),
    Mutant(
        "a host may begin like this machine", "browser_guard.py", "_LOOPBACK.fullmatch(host)", "_LOOPBACK.match(host)"
    ),
    Mutant("a form is taken for a link", "browser_guard.py", 'method in ("GET", "HEAD")', "method"),
    Mutant("a rebound name has heartbeats", "heartbeat_protocol.py", "not accepts_host(value)", "False"),
    Mutant("the log is not escaped", "log_lines.py", "if text.isprintable():", "if text:"),
    Mutant("an exception begins a line", "log_lines.py", 'f"{_INDENT}{line}"', "line"),
    Mutant("a hidden character stays", "fields.py", '("Cf", "Zl", "Zp")', '("Zl", "Zp")'),
    Mutant("emoji fall apart", "fields.py", "[{_JOINERS}{_NUMBER_SIGNS}]", "[{_NUMBER_SIGNS}]"),
    # Where a request ends, and what one client may hold.
    Mutant(
        "a body beside an upgrade is lost",
        CONNECTION,
        "        if self._body is None:\n            self.cycle.more",
        "        if True:\n            self.cycle.more",
    ),
    Mutant(
        "a pipelined request does not wait",
        CONNECTION,
        "return not self._is_under_way() and self._cut_head()",
        "return self._cut_head()",
    ),
    Mutant(
        "what follows Connection: close is read",
        CONNECTION,
        "        if self.transport.is_closing():\n            return\n        self._flow",
        "        self._flow",
    ),
    Mutant("a head cut in two may be of any size", CONNECTION, "if len(unread) >= MAX_HEAD_BYTES:", "if False:"),
    Mutant("a head in one piece may be of any size", CONNECTION, " and not data[MAX_HEAD_BYTES:]:", ":"),
    Mutant("each byte of a head gives more time", CONNECTION, "if not self._is_in_head:", "if True:"),
    Mutant(
        "a body has no time", CONNECTION, "return self._body is not None or self._is_in_head", "return self._is_in_head"
    ),
    Mutant(
        "a request is answered twice", CONNECTION, "is_answered=is_answered or has_begun", "is_answered=is_answered"
    ),
    Mutant("CONNECT is let through", HEADS, "(?!CONNECT )", ""),
    Mutant("two hosts are let through", HEADS, "if len(hosts) > 1 or (", "if ("),
    Mutant("chunks beside an upgrade are let through", HEADS, "if lengths or upgrades or", "if lengths or"),
    Mutant("any number of headers", HEADS, 'if fields.count(b"\\n") > MAX_HEADERS + 1:', "if False:"),
    Mutant(
        "a chunk may be longer than it says",
        BODIES,
        "            if line:\n                raise _malformed()\n            self",
        "            self",
    ),
    Mutant("the application lets the next request in", LIMITS, "if not self.is_held and not", "if not"),
    Mutant("a request under way is cut off", LIMITS, "elif not self._is_under_way():", "else:"),
    Mutant("one who does not read is waited for", LIMITS, "elif self.flow.write_paused:", "elif False:"),
    Mutant("each complaint is logged", REFUSALS, "if self._clock() - self._logged_at >= _LOG_SECONDS:", "if True:"),
    # Many callers, few round trips.
    Mutant(
        "who waited for too long keeps its room",
        LANE,
        "            self._waiting -= len(waiting.items)\n            waiting.fail",
        "            waiting.fail",
    ),
    Mutant("what was sent keeps its room", LANE, "            self._waiting -= size\n", ""),
    Mutant("any number may wait", LANE, "if self._waiting + len(items) > self._max_waiting:", "if False:"),
    Mutant("those who wait are counted, not what they want", LANE, "self._waiting + len(items) >", "self._waiting >"),
    Mutant(
        "only the first is given up in its time", LANE, "        self._impatience = None\n        now", "        now"
    ),
    Mutant("a caller that has gone is sent all the same", LANE, "or not waiting.replies.done():  #", "or True:  #"),
    Mutant("a batch has no end", LANE, "if size > room and batch:", "if False:"),
    Mutant("any number of batches is under way", LANE, " and len(self._batches) < self._max_in_flight", ""),
    Mutant("what waits is not drained", LANE, "self._flushing or self._batches or self._queue", "self._batches"),
    Mutant(
        "a reply that is not taken harms the others",
        LANE,
        "    except Exception as error:  # noqa: BLE001 - it must not",
        "    except ImportError as error:  # noqa: BLE001 - it must not",
    ),
    Mutant(
        "who went away keeps an error from the others",
        LANE,
        "elif self.replies and not self.replies.done():\n            self.replies.set_exception",
        "elif self.replies or not self.replies.done():\n            self.replies.set_exception",
    ),
    Mutant("replies go to their neighbours", LANE, "            start = end\n", ""),
    # Outages and meetings.
    Mutant(
        "a server is met although somebody else met it",
        EPOCHS,
        "elif self._known[slot] == refused and node.meetings == meetings:",
        "else:",
    ),
    Mutant("a loss concerns the slot alone", EPOCHS, "        if found.lost:\n", "        if False:\n"),
    Mutant("how long a server was alone does not count", OUTAGES, "if alone_seconds > silent_seconds:", "if False:"),
    Mutant("a known outage is repeated", ATTEMPTS, "(was_unanswered and not known_outage)", "was_unanswered"),
    Mutant("a slot that moves is not waited for", ATTEMPTS, "isinstance(error, _PASSING) or (was", "(was"),
    Mutant("NOREPLICAS is no outage", ATTEMPTS, '"NOREPLICAS ", ', ""),
    Mutant("a busy script is no outage", ATTEMPTS, '"BUSY ", ', ""),
    Mutant("a replica is no outage", ATTEMPTS, "    ReadOnlyError,\n    ClusterDownError", "    ClusterDownError"),
    Mutant("what came too late proves an outage", ATTEMPTS, "tried_seconds < _NEARLY", "tried_seconds < 0 * _NEARLY"),
    # Times and limits.
    Mutant("times before 1970 are not clamped", WIRE, "min(max(unix_ms, 0), _LAST", "min(unix_ms, _LAST"),
    Mutant("times after 9999 are not clamped", WIRE, "min(max(unix_ms, 0), _LAST_TIMESTAMP_MS)", "max(unix_ms, 0)"),
    Mutant("a stream without an end ended before now", "replies.py", "now + max(pttl, 0)", "now + pttl"),
    Mutant("a TTL may be longer than ends are remembered", RULES, "if self.ttl_ms > MAX_TTL_MS:", "if False:"),
    Mutant("two heartbeats may not be lost", RULES, "self.ttl_ms < 3 * self", "self.ttl_ms < 2 * self"),
    Mutant("stale after three heartbeats", RULES, "self.ttl_ms - 2 * self", "self.ttl_ms - 3 * self"),
    Mutant("rejected users have a limit", RULES, 'if self.unknown_users == "admit" else ""', ""),
    # Values of callers, and keys.
    Mutant("a user may be called dot", "fields.py", "(?!\\.{{1,2}}$)", ""),
    Mutant(
        "a text may be of any length", "fields.py", "if not 1 <= len(value.encode()) <= MAX_FIELD_BYTES:", "if False:"
    ),
    Mutant("a text is measured in characters", "fields.py", "len(value.encode())", "len(value)"),
    Mutant("texts have control characters", "fields.py", "if not _is_text(value):", "if False:"),
    Mutant("a prefix may be anything", "fields.py", "if not _is_key_prefix(value):", "if False:"),
    Mutant("the prefix is not put before streams", "keys.py", 'f"{self._prefix}{noun}', 'f"{noun}'),
    Mutant("a Cluster has one epoch", "keys.py", "slot_of(user_id) if self._clustered else 0", "0"),
    Mutant("digests may be short", "api_keys.py", '"[0-9a-f]{64}"', '"[0-9a-f]{8,64}"'),
    Mutant("a player acts for all", "callers.py", "self.role is not Role.PLAYER", "self.role is Role.PLAYER"),
    Mutant("a header may be sent twice", "authenticator.py", "if len(authorization) == 1 and", "if"),
    Mutant("a credential may be huge", "authenticator.py", " and len(value) <= MAX_CREDENTIAL", ""),
    Mutant("a failure is not noted", "authenticator.py", "self._failed.note(credential)", "pass"),
    Mutant("failures are counted for ever", "failed_credentials.py", "if until > now else", "if True else"),
    Mutant("each failure prolongs the minute", "failed_credentials.py", "(count + 1, until)", "(count + 1, now + 60)"),
    # Tokens.
    Mutant(
        "the algorithm is not checked before the key is looked for",
        TOKENS,
        'if header.get("alg") not in self._algorithms:',
        "if False:",
    ),
    Mutant("clocks may differ by any time", TOKENS, "leeway=self._leeway_seconds", "leeway=10**9"),
    Mutant("a limit in a token may be negative", TOKENS, " or limit < 0:", ":"),
    Mutant("True is a limit", TOKENS, "type(limit) is not int", "not isinstance(limit, int)"),
    Mutant("a limit in a token is not cut", TOKENS, "limit = min(limit, self._max_limit)", "pass"),
    Mutant("a short secret is taken", "token_keys.py", "if len(secret) < MIN_SECRET_LENGTH:", "if len(secret) < 31:"),
    Mutant(
        "a public key is a secret",
        "token_keys.py",
        "        HMACAlgorithm(HMACAlgorithm.SHA256).prepare_key(secret)",
        "        pass",
    ),
    Mutant(
        "a short RSA key is taken",
        "token_keys.py",
        "    if found.Algorithm.check_key_length(found.key):",
        "    if False:",
    ),
    Mutant("what is beside the keys is ignored", "token_keys.py", ' or _PEM.sub("", text).strip():', ":"),
    Mutant("a key for encryption signs", "token_keys.py", ' or member.get("use", "sig") != "sig":', ":"),
    Mutant("a set may have any number of keys", "token_keys.py", "members[:MAX_KEYS] if", "members if"),
    Mutant(
        "the last key of a name counts", "token_keys.py", "keys.setdefault(key.key_id, key)", "keys[key.key_id] = key"
    ),
    Mutant(
        "both kinds of algorithms together",
        "token_settings.py",
        "not set(names) <= set(ASYMMETRIC)",
        "not set(names) <= {SYMMETRIC, *ASYMMETRIC}",
    ),
    Mutant(
        "keys may come without TLS", "token_settings.py", 'and parts.hostname in ("127.0.0.1", "::1", "localhost")', ""
    ),
    Mutant("a set with secrets is taken from a URL", JWKS, "if name in ASYMMETRIC)", ")"),
    Mutant("a failed fetch is not repeated soon", JWKS, "_RETRY_SECONDS if self._complaint else ", ""),
    # Counting, logging, readiness, ports.
    Mutant(
        "the last bucket is not counted",
        "metrics.py",
        "totals[base + _LATENCIES : base + _SUM]",
        "totals[base + _LATENCIES : base + _SUM - 1]",
    ),
    Mutant("all workers share one row", "counters.py", "found[0] if found else _ROWS - 1", "0"),
    Mutant("a count is that of one worker", "counters.py", "if row[0]]", "if row[0]][:1]"),
    Mutant("players are written into the log", "audit.py", "if caller.role is not Role.PLAYER:", "if True:"),
    Mutant("a short user stands in the log", "audit.py", "min(_CUT_LENGTH, len(user_id) // 2)", "_CUT_LENGTH"),
    Mutant("a hash without the secret", "audit.py", "hmac.digest(self._secret,", 'hmac.digest(b"",'),
    Mutant(
        "each question looks at the store",
        "readiness.py",
        "self._look.done() and now - self._began >= FRESH_SECONDS",
        "True",
    ),
    Mutant("readiness is looked at once", "readiness.py", "now - self._began >= FRESH_SECONDS", "False"),
    Mutant(
        "who goes away takes the look along",
        "readiness.py",
        "return await asyncio.shield(self._look)",
        "return await self._look",
    ),
    Mutant("the operators' routes are public", "ports.py", "        if is_public(request):", "        if False:"),
    # Finding the servers.
    Mutant("a slot that nobody holds is an error of ours", "topology.py", "except KeyError:", "except IndexError:"),
    Mutant(
        "redis-py repeats by itself", "connection.py", "never = Retry(NoBackoff(), 0)", "never = Retry(NoBackoff(), 3)"
    ),
    Mutant("options of a Cluster are lost", "connection.py", "    options |= _options(parts)\n", ""),
    Mutant("TLS is forgotten", "connection.py", 'options["ssl"] = True', "pass"),
    Mutant(
        "a password stands in a message",
        "urls.py",
        'raise ValueError(f"the port must be a number; {_ENCODE}")',
        "raise ValueError(parts.netloc)",
    ),
    Mutant("who is no Sentinel's primary is left at once", "primary.py", "if address == self._address:", "if False:"),
    # Examining a store.
    Mutant("a store that drops keys is well", "health.py", 'if policy != "noeviction":', "if False:"),
    Mutant("a full store is well", "health.py", "if 0 < int(", "if 1 < 0 < int("),
    Mutant("a store without a file is well", "health.py", 'if not int(told.get("aof_enabled", 1)):', "if False:"),
    Mutant("a command is not asked for", "permissions.py", '"HLEN", ', ""),
    Mutant(
        "what may not be run is not told",
        "permissions.py",
        "                commands.add(named[1])",
        "                pass",
    ),
    Mutant(
        "a slow store is fast enough",
        "probe.py",
        "one.milliseconds(0.5) for one in timings) > _SLOW_MEDIAN_MS",
        "one.milliseconds(0.5) for one in timings) > 10**9",
    ),
    Mutant(
        "the streams of the doctor stay", "probe.py", '            await target.ask("DEL", *keys)', "            pass"
    ),
    Mutant("a silent Sentinel is well", "survey.py", "    if silent:\n        found", "    if False:\n        found"),
    Mutant(
        "two Sentinels are enough",
        "survey.py",
        "min(len(answers), *usable) < _QUORUM",
        "min(len(answers), *usable) < 1",
    ),
    Mutant("a Cluster that fails is well", "survey.py", ' or worst.state == "fail":', ":"),
    Mutant("the best news count", "survey.py", "worst = min(views", "worst = max(views"),
    Mutant(
        "what was skipped is the worst",
        "findings.py",
        '("problem", "warning", "ok", "skipped")',
        '("skipped", "problem", "warning", "ok")',
    ),
    Mutant("a problem ends well", "report.py", 'state == "problem" or ', ""),
    Mutant("--strict is ignored", "report.py", 'strict and state == "warning"', "False"),
    Mutant("an empty file of a secret is none", "secret_files.py", "        if not value:\n", "        if False:\n"),
    Mutant("a secret is read from two places", "secret_files.py", "if os.environ.get(name):", "if False:"),
    # Settings: a wrong value that is taken starts the service.
    Mutant("a short secret signs", "settings.py", "len(secret) < MIN_SECRET_LENGTH for", "len(secret) < 31 for"),
    Mutant(
        "memory:// has several workers",
        "settings.py",
        "if self.redis_url == MEMORY_URL and self.workers > 1:",
        "if False:",
    ),
    Mutant(
        "a public address needs no keys", "settings.py", "if not self.authenticates and not self.insecure:", "if False:"
    ),
    Mutant(
        "a public address needs no secret", "settings.py", "            if not self.secrets:", "            if False:"
    ),
    Mutant("rules are not looked at", "settings.py", "            _ = self.rules\n", "            pass\n"),
    Mutant("tokens need no issuer", "settings.py", "            if not getattr(self, name):", "            if False:"),
    # The process and its store.
    Mutant("few files may be open", "server.py", "    if soft < wanted:\n", "    if False:\n"),
    Mutant("a worker stays when its parent has gone", "server.py", "loop.add_reader(parent.sentinel, stop)", "pass"),
    Mutant("the supervisor obeys signals", "supervisor.py", "signal.signal(name, signal.SIG_IGN)", "pass"),
    Mutant("a Ctrl-C reaches the store", "embedded.py", "start_new_session=True", "start_new_session=False"),
    Mutant(
        "the embedded store writes when it likes", "embedded.py", '"appendfsync": "everysec"', '"appendfsync": "no"'
    ),
    Mutant("the embedded store keeps nothing", "embedded.py", '"appendonly": "yes"', '"appendonly": "no"'),
    Mutant(
        "the embedded store drops streams",
        "embedded.py",
        '"maxmemory-policy": "noeviction"',
        '"maxmemory-policy": "allkeys-lru"',
    ),
    Mutant("a crashed store stays away", "supervisor.py", "if may_give_up and failures and code > 0:", "if code:"),
    # What callers send, and what they are told.
    Mutant("a body of any type is read", HANDLERS, 'if content_type != "application/json":', "if False:"),
    Mutant("a body without a length has no end", HANDLERS, "if len(body) > request.state.max_body_bytes:", "if False:"),
    Mutant("a key may be sent twice", HANDLERS, "(value,) = values", "value = values[0]"),
    Mutant(
        "warnings are for everybody",
        HANDLERS,
        "list(health.warnings) if is_operators(request) or not request.app.state.authenticator.asks else []",
        "list(health.warnings)",
    ),
    Mutant("a player acts for any user", "dispatch.py", "if not caller.may_act_for(", "if False and not ("),
    Mutant("a change stands in no log", "dispatch.py", "operation.method in _CHANGES and request", "False and request"),
    Mutant("a long body is refused afterwards", "dispatch.py", "if length.isdecimal() and int(length)", "if 0"),
    Mutant(
        "a path may end in a line feed", "dispatch.py", 'if request.scope["path"].endswith("\\n") and', "if False and"
    ),
    Mutant("fields that nobody knows are ignored", WIRE, 'extra="forbid"', 'extra="ignore"'),
    Mutant("a text is a number", WIRE, 'extra="forbid", strict=True', 'extra="forbid"'),
    Mutant("a batch may be of any length", WIRE, "Field(max_length=MAX_BATCH)", "Field()"),
    Mutant("an ended stream was never there", "problems.py", '"stream-ended", 410', '"stream-ended", 404'),
    Mutant("a stream that never was has ended", "problems.py", '"unknown-stream", 404', '"unknown-stream", 410'),
    Mutant("the limit is an error of ours", "problems.py", '"limit-reached", 409', '"limit-reached", 503'),
    Mutant("an outage is a bug", "problems.py", '"store-unavailable", 503', '"store-unavailable", 500'),
    Mutant("wait for no time", "problems.py", "max(1, math.ceil(milliseconds / 1000))", "milliseconds // 1000"),
    Mutant(
        "a bug shows itself",
        "problems.py",
        "    return internal_error()",
        "    return Problem(INTERNAL_ERROR, str(error))",
    ),
    Mutant("who sent no key sent a wrong one", "problems.py", 'if error.reason == "missing" else', "if False else"),
    Mutant("a page may be of any origin", "cors.py", "allow_origins=origins", 'allow_origins=("*",)'),
    Mutant("an origin may have a path", "cors.py", "re.fullmatch(_ORIGIN", "re.match(_ORIGIN"),
    Mutant(
        "a stream in an outage looks counted", OUTAGE, ", **given, provisional=True", ", **given, provisional=False"
    ),
    Mutant("a new secret is open for a moment", "secret.py", "os.O_TRUNC, 0o600)", "os.O_TRUNC, 0o644)"),
    Mutant("half a secret is read", "secret.py", "path.hardlink_to(draft)", "path.write_bytes(draft.read_bytes())"),
    Mutant(
        "the tag of a slot is that of another",
        "hash_slots.py",
        "setdefault(slot_of(str(number))",
        "setdefault(number % SLOTS",
    ),
    Mutant("a tag is in any slot", "hash_slots.py", "return key_slot(tag.encode())", "return len(tag)"),
    Mutant("any number of debts", "debts.py", "if len(self._owed) >= _MAX_OWED:", "if False:"),
    Mutant("what was interrupted is no longer owed", "debts.py", "self._owed.extendleft(reversed(batch))", "pass"),
    Mutant("nobody is overdue", "deadlines.py", "if connection.deadline <= now:", "if False:"),
    Mutant("players set limits", "routes.py", "frozenset({Role.SERVICE, Role.OPERATOR})", "frozenset(Role)"),
    Mutant(
        "a back end is an operator",
        "routes.py",
        "OPERATOR: Final = frozenset({Role",
        "OPERATOR: Final = frozenset(Role) | ({Role",
    ),
    Mutant("a slash in a user id is another path", "app.py", 'b"%2f" in', 'b"%00" in'),
    Mutant("pages are not kept away", "app.py", "*([] if authenticator.asks else [guard]),", "*[],"),
    Mutant("a redirect leads to another host", "app.py", "redirect_slashes = False", "redirect_slashes = True"),
    # Examining a server and a user.
    Mutant(
        "a file that takes nothing is well",
        "checks.py",
        '("aof_last_write_status", "ok") != "ok"',
        '("", "ok") != "ok"',
    ),
    Mutant("a replica is a primary", "checks.py", 'if info["role"] != "master":', "if False:"),
    Mutant("a server that drops keys is well", "checks.py", 'if policy == "noeviction":', "if policy:"),
    Mutant("a damaged key is well", "user_keys.py", 'if key.kind == "hash":', "if key.kind:"),
    Mutant(
        "the seats above the highest limit are hidden",
        "user_keys.py",
        "Keys(key_prefix, MAX_SEATS,",
        "Keys(key_prefix, rules.max_limit,",
    ),
    # Repairing files.
    Mutant("what follows the damage is kept", "append_only.py", "                break", "                pass"),
    Mutant("what cannot be read is kept", "append_only.py", "            copy.truncate(size)\n", ""),
    Mutant(
        "sound files are repaired", "append_only.py", "if parts and not damaged and manifest_is_whole:", "if False:"
    ),
    Mutant(
        "a repair begins no recovery", "append_only.py", '"recovering_until": now + ttl_ms', '"recovering_until": now'
    ),
    # Several processes.
    Mutant("a worker that died stays dead", "workers.py", "if self._signals or worker.is_alive(", "if True or ("),
    Mutant(
        "a worker that cannot start is started for ever",
        "workers.py",
        "if worker.exitcode == STARTUP_FAILURE:",
        "if False:",
    ),
    Mutant("a drain takes connections that nobody answers", "workers.py", "listener.close()", "pass"),
    Mutant(
        "a Ctrl-C kills a worker that starts",
        "workers.py",
        "signal.pthread_sigmask(signal.SIG_BLOCK, OF_TERMINAL)",
        "pass",
    ),
)
