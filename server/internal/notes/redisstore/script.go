package redisstore

import (
	"crypto/sha1" //nolint:gosec // Redis names scripts so
	"encoding/hex"

	"github.com/redis/rueidis"
)

// A script is sent by its hash, and as text to a Redis that does not know it yet: Redis hashes each text.
type script struct {
	text, hash string
}

func newScript(text string) script {
	hash := sha1.Sum([]byte(text)) //nolint:gosec // Redis names scripts so
	return script{text, hex.EncodeToString(hash[:])}
}

func (s script) command(client rueidis.CoreClient, asText bool, keys, args []string) rueidis.Completed {
	if asText {
		return client.B().Eval().Script(s.text).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
	}
	return client.B().Evalsha().Sha1(s.hash).Numkeys(int64(len(keys))).Key(keys...).Arg(args...).Build()
}

// The scripts that run for each batch of notes, for each read of a log, and for each message that there are changes.
var (
	appending = newScript(appendScript)
	ranging   = rueidis.NewLuaScriptReadOnly(rangeScript)
	replaying = rueidis.NewLuaScriptReadOnly(replayScript)
)

// A permission may be taken away at any time, and a script that fails in the middle is not undone. So scripts ask for the
// permissions of all their writes before the first one. Redis checks its memory and its role before the first write only.
const (
	// head returns the base of a log, and the number of elements before its first note.
	head = `
local function head(log)
	local first = redis.call('LINDEX', log, 0)
	if first and #first == 8 then return struct.unpack('>I8', first), 1 end
	return first and 0, 0
end`

	// permissions returns the error for the first of some commands that the user may not run. The commands have
	// the arguments that Redis needs to find their keys.
	permissions = `
local function denied(commands)
	for _, command in ipairs(commands) do
		if not redis.acl_check_cmd(unpack(command)) then
			return redis.error_reply("NOPERM this user has no permissions to run the '" .. string.lower(command[1]) .. "' command")
		end
	end
end`

	// readPermissions and writePermissions are the commands that the scripts call, and those that are sent besides.
	readPermissions = `{'EVALSHA_RO', '', '1', KEYS[1]}, {'HMGET', KEYS[1], ''}, {'LINDEX', KEYS[1], 0}, {'LLEN', KEYS[1]}, {'LRANGE', KEYS[1], 0, 0},
	{'XRANGE', KEYS[1], '-', '+'}, {'XREVRANGE', KEYS[1], '+', '-'}, {'ZRANGEBYLEX', KEYS[1], '-', '+'}`
	writePermissions = `{'EVALSHA', '', '1', KEYS[1]}, {'SSUBSCRIBE', ARGV[1]}, {'GET', KEYS[1]}, {'SET', KEYS[1], ''}, {'RPUSH', KEYS[1], ''}, {'LSET', KEYS[1], 0, ''}, {'LTRIM', KEYS[1], 0, 0},
	{'ZADD', KEYS[1], 0, ''}, {'ZREM', KEYS[1], ''}, {'XADD', KEYS[1], '*', '', ''}, {'HSET', KEYS[1], '', ''}, {'SPUBLISH', ARGV[1], ''}`

	// probeReadScript and probeWriteScript check the permissions for all other scripts. The latter also writes: it
	// leaves nothing. RPUSH is its first write, since Redis checks its memory before the first write of a script
	// only.
	probeReadScript  = permissions + "\nreturn denied({" + readPermissions + "})"
	probeWriteScript = permissions + "\nlocal err = denied({" + writePermissions + ", " + readPermissions + "})" + `
if err then return err end
redis.call('RPUSH', KEYS[1], ARGV[2])
redis.call('LTRIM', KEYS[1], 1, 0)`

	// renewScript replaces the lineage of a partition if it is the one of ARGV[1]; an empty one is none. It
	// returns the lineage.
	renewScript = `
local lineage = redis.call('HMGET', KEYS[1], 'lineage')[1] or ''
if lineage ~= ARGV[1] then return lineage end
redis.call('HSET', KEYS[1], 'lineage', ARGV[2])
return ARGV[2]`

	// appendScript appends a batch of notes of one partition. A group is some notes of one log, or one note with
	// an ID.
	//
	// KEYS: partition, changes, index; for each group its log and, for a note with an ID, the key of the ID.
	// ARGV: lineage, ID of the last batch known or '', token of this batch, number of changes to keep, channel; for
	// each group the number of notes, or 0 for a note with an ID, and their elements and, for a note with an ID,
	// its expiry and hash.
	//
	// It returns the ID of the batch, '' if nothing was added, and for each note: its position, negative if it is
	// alone in its log; what is kept of the first note with its ID; or 0 if that was another note.
	appendScript = head + `
local state = redis.call('HMGET', KEYS[1], 'lineage', 'last')
if state[1] ~= ARGV[1] then return redis.error_reply('LINEAGE ' .. (state[1] or '')) end
local last, keep = tonumber(string.match(state[2] or '0', '^%d+')), tonumber(ARGV[4])
local seen = tonumber(string.match(ARGV[2], '^%d+') or 0)
if ARGV[2] ~= state[2] and seen > 0 and seen > last - keep and #redis.call('XRANGE', KEYS[2], ARGV[2], ARGV[2]) == 0 then
	return redis.error_reply('LOST ' .. ARGV[2])
end
local may, log = redis.acl_check_cmd, KEYS[4]
if not (may('RPUSH', log, '') and may('LINDEX', log, '0') and may('ZADD', log, '0', '') and may('XADD', log, '*', '', '') and may('HSET', log, '', '')
	and may('GET', log) and may('SET', log, '')) then
	return redis.error_reply('NOPERM this user has no permissions to append notes')
end
local reply, changes, added = {''}, {}, {}
local key, arg = 4, 6
while key <= #KEYS do
	local log, count, element, id, first = KEYS[key], tonumber(ARGV[arg]), arg + 1, nil, nil
	if count == 0 then
		key, arg, count = key + 1, arg + 2, 1
		id = KEYS[key]
		first = redis.call('GET', id)
	end
	key, arg = key + 1, arg + 1 + count
	if first then
		reply[#reply + 1] = string.sub(first, 17) == ARGV[element + 2] and first or 0
	else
		local length = redis.call('RPUSH', log, unpack(ARGV, element, element + count - 1))
		local base, skip = 0, 0
		if length > count then base, skip = head(log) end
		length = length - skip
		local z = string.sub(log, -8)
		if length == count then
			added[#added + 1] = '0'
			added[#added + 1] = z
		end
		for i = length - count + 1, length do
			changes[#changes + 1] = z
			changes[#changes + 1] = struct.pack('>I8', base + i)
			reply[#reply + 1] = i == 1 and -(base + i) or base + i
		end
		if id then
			first = changes[#changes] .. string.sub(ARGV[element], 1, 8) .. ARGV[element + 2]
			redis.call('SET', id, first, 'PXAT', ARGV[element + 1])
		end
	end
end
if #changes > 0 then
	last = last + #changes / 2
	reply[1] = string.format('%.0f-%s', last, ARGV[3])
	if #added > 0 then redis.call('ZADD', KEYS[3], unpack(added)) end
	redis.call('XADD', KEYS[2], 'MINID', '~', string.format('%.0f', math.max(last - keep, 0)), reply[1], 'c', table.concat(changes))
	redis.call('HSET', KEYS[1], 'last', reply[1])
	redis.pcall('SPUBLISH', ARGV[5], '')
end
return reply`

	// rangeScript reads the span (after, through] of a log, or its newest notes.
	//
	// KEYS: log and, if a note must be on replicas before it is read, changes.
	// ARGV: after, through, newest, limits of notes and bytes, and number of the last change known to be on replicas.
	//
	// It returns the position of the first note, 1 if notes are left out by the limits or 0, the ID of a batch that
	// must be on replicas or '', and the notes. Where it would have to look at many batches, it returns the ID of
	// the last one.
	rangeScript = head + `
local after, through, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local maxNotes, maxBytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local base, skip = head(KEYS[1])
if not base then return {1, 0, ''} end
local last = math.min(through - base, redis.call('LLEN', KEYS[1]) - skip)
local first = math.max(after - base, 0)
if newest > 0 then first = math.max(first, last - newest) end
local result, bytes = {base + first + 1, 0, ''}, 0
local function finish()
	if not KEYS[2] or #result == 3 then return result end
	local batches = redis.call('XREVRANGE', KEYS[2], '+', string.format('%.0f', tonumber(ARGV[6]) + 1), 'COUNT', 9)
	if #batches > 8 then
		result[3] = batches[1][1]
		return result
	end
	local z, through = string.sub(KEYS[1], -8), result[1] + #result - 4
	for _, batch in ipairs(batches) do
		local changes, start = batch[2][2], 1
		while true do
			local at = string.find(changes, z, start, true)
			if not at then break end
			if at % 16 == 1 and struct.unpack('>I8', changes, at + 8) <= through then
				result[3] = batch[1]
				return result
			end
			start = at + 1
		end
	end
	return result
end
while first < last do
	local stop = math.min(first + 16, last, first + maxNotes - (#result - 3))
	for _, element in ipairs(redis.call('LRANGE', KEYS[1], first + skip, stop + skip - 1)) do
		if #result > 3 and bytes + #element > maxBytes then
			result[2] = 1
			return finish()
		end
		bytes = bytes + #element
		result[#result + 1] = element
	end
	first = stop
	if first < last and #result - 3 >= maxNotes then
		result[2] = 1
		return finish()
	end
end
return finish()`

	// replayScript reads batches of changes, and their notes.
	//
	// KEYS: partition, changes.
	// ARGV: first batch, as an ID, a number or '-'; limits of notes and bytes; prefix of the logs, '' for no notes.
	//
	// It returns the lineage, the ID of the last batch, and for each batch its ID, its changes, and the element of
	// each note, '' if it was forgotten. If the first batch is given by its ID, its notes are left out. A log is missing
	// while its slot moves to this node.
	replayScript = head + `
local state = redis.call('HMGET', KEYS[1], 'lineage', 'last')
local reply = {state[1] or '', state[2] or ''}
if reply[2] == ARGV[1] then return reply end
local notes, bytes, log, base, skip = 0, 0, nil, nil, nil
for _, batch in ipairs(redis.call('XRANGE', KEYS[2], ARGV[1], '+', 'COUNT', 16)) do
	local changes = batch[2][2]
	reply[#reply + 1] = batch[1]
	reply[#reply + 1] = changes
	if ARGV[4] ~= '' and batch[1] ~= ARGV[1] then
		for i = 1, #changes, 16 do
			local key, position = ARGV[4] .. string.sub(changes, i, i + 7), struct.unpack('>I8', changes, i + 8)
			if key ~= log then
				log, base, skip = key, head(key)
				if not base then return redis.error_reply('TRYAGAIN a log is not here') end
			end
			local element = position > base and redis.call('LINDEX', key, position - base + skip - 1) or ''
			reply[#reply + 1] = element
			bytes = bytes + #element
		end
	end
	if batch[1] ~= ARGV[1] then notes = notes + #changes / 16 end
	if notes >= tonumber(ARGV[2]) or bytes >= tonumber(ARGV[3]) then break end
end
return reply`

	// confirmScript returns the ID of the last batch of changes if another batch is there, and else ''.
	confirmScript = `
if #redis.call('XRANGE', KEYS[2], ARGV[1], ARGV[1]) == 0 then return '' end
return redis.call('HMGET', KEYS[1], 'last')[1]`

	// locationsScript returns the first locations of the index in ranges, joined.
	//
	// ARGV: limit of locations, first and last location of each range.
	locationsScript = `
local found, limit = {}, tonumber(ARGV[1])
for arg = 2, #ARGV, 2 do
	for _, z in ipairs(redis.call('ZRANGEBYLEX', KEYS[1], '[' .. ARGV[arg], '[' .. ARGV[arg + 1], 'LIMIT', 0, limit - #found)) do
		found[#found + 1] = z
	end
	if #found >= limit then break end
end
return table.concat(found)`

	// forgetScript is one step of Forget: it removes the longest prefix of a log that ends with an old element and
	// has no young one. It starts after a position up to which a previous step found no young element, and
	// neither reads nor removes more than a number of elements. The cutoff and the present time are passed as
	// two 32-bit halves each, because Lua numbers have 53 bits. It returns the number of elements removed,
	// and the position after which to continue, or -1.
	//
	// KEYS: log, index. ARGV: position, limit, cutoff, present time.
	forgetScript = head + permissions + `
local err = denied({{'LSET', KEYS[1], 0, ''}, {'LTRIM', KEYS[1], 0, 0}, {'ZREM', KEYS[2], ''}})
if err then return err end
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local beforeHigh, beforeLow = tonumber(ARGV[3]), tonumber(ARGV[4])
local nowHigh, nowLow = tonumber(ARGV[5]), tonumber(ARGV[6])
local base, skip = head(KEYS[1])
if not base then return {0, -1} end
local first = math.max(after - base, 0)
local scanned, old, step, more = first, 0, 1, true
while more and scanned < first + limit do
	local elements = redis.call('LRANGE', KEYS[1], scanned + skip, math.min(scanned + step, first + limit) + skip - 1)
	more = #elements > 0
	for _, element in ipairs(elements) do
		local high, low = struct.unpack('>I4I4', element)
		local isOld = high < beforeHigh or (high == beforeHigh and low < beforeLow)
		if not isOld and (high < nowHigh or (high == nowHigh and low <= nowLow)) then
			more = false
			break
		end
		scanned = scanned + 1
		if isOld then old = scanned end
	end
	step = 16
end
local count = math.min(old, limit)
if count > 0 then
	redis.call('LSET', KEYS[1], count + skip - 1, struct.pack('>I8', base + count))
	redis.call('LTRIM', KEYS[1], count + skip - 1, -1)
	if redis.call('LLEN', KEYS[1]) == 1 then
		redis.call('ZREM', KEYS[2], string.sub(KEYS[1], -8))
	end
end
if count < old then return {count, base + first} end
if more then return {count, base + scanned} end
return {count, -1}`
)
