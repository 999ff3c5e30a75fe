package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/internal/notes"
)

// The data model. The log of a location is a list:
//
//	routeguide:{LATITUDE,LONGITUDE}  base, note, note, ...
//
// A note is its time, 8 bytes big-endian, and the encoded note. Its position is its index in the list plus
// the base, the number of notes forgotten. The base is an element of the list, and not a key of its own, so
// that both stay together while a cluster moves a slot. It stays when every note is forgotten, so that no
// position is reused.
const (
	keyPrefix  = "routeguide:{"
	keySuffix  = "}"
	keyPattern = "routeguide:{*}"
	timeSize   = 8
)

func listKey(location notes.Location) string {
	key := make([]byte, 0, len(keyPrefix)+2*len("-1800000000,")+len(keySuffix))
	key = append(key, keyPrefix...)
	key = strconv.AppendInt(key, int64(location.Latitude), 10)
	key = append(key, ',')
	key = strconv.AppendInt(key, int64(location.Longitude), 10)
	return string(append(key, keySuffix...))
}

func parseKey(key string) (location notes.Location, ok bool) {
	tag, found := strings.CutSuffix(strings.TrimPrefix(key, keyPrefix), keySuffix)
	latitude, longitude, comma := strings.Cut(tag, ",")
	first, err := strconv.ParseInt(latitude, 10, 32)
	second, err2 := strconv.ParseInt(longitude, 10, 32)
	location = notes.Location{Latitude: int32(first), Longitude: int32(second)}
	return location, found && comma && err == nil && err2 == nil && listKey(location) == key
}

func encode(note notes.Note) string {
	element := make([]byte, 0, timeSize+len(note.Encoded))
	element = binary.BigEndian.AppendUint64(element, uint64(note.Time))
	return rueidis.BinaryString(append(element, note.Encoded...))
}

// Scripts are always sent as text. Redis compiles a script once. EVALSHA would save bytes, but could fail
// with NOSCRIPT in the middle of a batch, after a restart or a failover.
//
// A permission may be taken away at any time, and a script that fails in the middle is not undone. So each script calls the
// commands that could be denied before its first write, or makes that write its last.
const (
	// noBase is the error for a list without a base. Its code is in notStored.
	noBase = `
local function noBase() return redis.error_reply('WRONGTYPE the log has no base') end`

	// appendScript appends elements and returns the position of the last one.
	appendScript = noBase + `
local base = redis.call('LINDEX', KEYS[1], 0)
if not base then
	redis.call('RPUSH', KEYS[1], '0', unpack(ARGV))
	return #ARGV
end
base = tonumber(base)
if not base then return noBase() end
return redis.call('RPUSH', KEYS[1], unpack(ARGV)) - 1 + base`

	// probeScript calls all commands of the other scripts. It leaves nothing, or one element if it was denied a command in the
	// middle. RPUSH is its first write, since Redis checks its memory before the first write of a script only.
	probeScript = `
if redis.call('LLEN', KEYS[1]) == 0 then
	redis.call('RPUSH', KEYS[1], ARGV[1])
end
redis.call('LSET', KEYS[1], 0, ARGV[1])
redis.call('LINDEX', KEYS[1], 0)
redis.call('LRANGE', KEYS[1], 0, 0)
redis.call('LTRIM', KEYS[1], 1, 0)
return 1`

	// rangeScript reads the span (after, through], or its newest elements. It returns the position of the
	// first element, 1 if elements are left out by the limits or 0, and the elements.
	rangeScript = noBase + `
local after, through, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local maxNotes, maxBytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local length = redis.call('LLEN', KEYS[1])
if length == 0 then return {1, 0} end
local base = tonumber(redis.call('LINDEX', KEYS[1], 0))
if not base then return noBase() end
local last = math.min(through - base, length - 1)
local first = math.max(after - base, 0)
if newest > 0 then first = math.max(first, last - newest) end
local result, bytes = {base + first + 1, 0}, 0
local function more() result[2] = 1; return result end
while first < last do
	local stop = math.min(first + 16, last, first + maxNotes - (#result - 2))
	for _, element in ipairs(redis.call('LRANGE', KEYS[1], first + 1, stop)) do
		if #result > 2 and bytes + #element > maxBytes then
			return more()
		end
		bytes = bytes + #element
		result[#result + 1] = element
	end
	first = stop
	if first < last and #result - 2 >= maxNotes then return more() end
end
return result`

	// forgetScript is one step of Forget: it removes the longest prefix that ends with an old element and has
	// no young one. It starts after a position up to which a previous step found no young element, and
	// neither reads nor removes more than a number of elements. The cutoff and the present time are passed as
	// two 32-bit halves each, because Lua numbers have 53 bits. It returns the number of elements removed,
	// and the position after which to continue, or -1.
	forgetScript = `
local after, limit = tonumber(ARGV[1]), tonumber(ARGV[2])
local beforeHigh, beforeLow = tonumber(ARGV[3]), tonumber(ARGV[4])
local nowHigh, nowLow = tonumber(ARGV[5]), tonumber(ARGV[6])
local base = tonumber(redis.call('LINDEX', KEYS[1], 0) or 0)
if not base then return {0, -1} end
local first = math.max(after - base, 0)
local scanned, old, step, more = first, 0, 1, true
while more and scanned < first + limit do
	local elements = redis.call('LRANGE', KEYS[1], scanned + 1, math.min(scanned + step, first + limit))
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
	redis.call('LTRIM', KEYS[1], 0, -1) -- changes nothing
	redis.call('LSET', KEYS[1], count, string.format('%.0f', base + count))
	redis.call('LTRIM', KEYS[1], count, -1)
end
if count < old then return {count, base + first} end
if more then return {count, base + scanned} end
return {count, -1}`
)

// parseRange parses the reply of rangeScript.
func parseRange(reply []rueidis.RedisMessage) (chunk []notes.Note, more bool, err error) {
	if len(reply) < 2 {
		return nil, false, errors.New("the reply of a range has no position")
	}
	first, err := reply[0].AsInt64()
	if err != nil {
		return nil, false, err
	}
	moreNumber, err := reply[1].AsInt64()
	if err != nil {
		return nil, false, err
	}
	chunk = make([]notes.Note, 0, len(reply)-2)
	for i, message := range reply[2:] {
		element, err := message.AsBytes()
		if err != nil {
			return nil, false, err
		}
		if len(element) <= timeSize {
			return nil, false, fmt.Errorf("%w: a note has %d bytes", notes.ErrDamaged, len(element))
		}
		chunk = append(chunk, notes.Note{
			Position: notes.Position(first + int64(i)),
			Time:     int64(binary.BigEndian.Uint64(element)),
			Encoded:  element[timeSize:],
		})
	}
	return chunk, moreNumber != 0, nil
}
