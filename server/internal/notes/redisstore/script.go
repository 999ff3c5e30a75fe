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

// What is in Redis. The log of a location is a list:
//
//	routeguide:{LATITUDE,LONGITUDE}  base, note, note, ...
//
// A note is its time, 8 bytes big-endian, and the encoded note. Its position is its index in the list,
// plus the base, which is how many notes were forgotten before. The base is in the list, and not under
// a key of its own, so that they are always together, also while a cluster moves a slot; and it stays
// when every note is forgotten, so that no position is given twice.
const (
	keyPrefix  = "routeguide:{"
	keySuffix  = "}"
	keyPattern = "routeguide:{*}"
	timeSize   = 8
)

func listKey(at notes.Location) string {
	key := make([]byte, 0, len(keyPrefix)+2*len("-1800000000,")+len(keySuffix))
	key = append(key, keyPrefix...)
	key = strconv.AppendInt(key, int64(at.Latitude), 10)
	key = append(key, ',')
	key = strconv.AppendInt(key, int64(at.Longitude), 10)
	return string(append(key, keySuffix...))
}

func parseKey(key string) (at notes.Location, ok bool) {
	tag, found := strings.CutSuffix(strings.TrimPrefix(key, keyPrefix), keySuffix)
	latitude, longitude, comma := strings.Cut(tag, ",")
	first, err := strconv.ParseInt(latitude, 10, 32)
	second, err2 := strconv.ParseInt(longitude, 10, 32)
	at = notes.Location{Latitude: int32(first), Longitude: int32(second)}
	return at, found && comma && err == nil && err2 == nil && listKey(at) == key
}

func encode(note notes.Note) string {
	element := make([]byte, 0, timeSize+len(note.Encoded))
	element = binary.BigEndian.AppendUint64(element, uint64(note.Time))
	return rueidis.BinaryString(append(element, note.Encoded...))
}

// The scripts are always sent whole. Redis compiles one once, and sending its hash instead could
// find it unknown in the middle of a batch, after a restart or a failover.
const (
	// appendScript adds elements and returns the position of the last one.
	appendScript = `
local length = redis.call('RPUSH', KEYS[1], unpack(ARGV))
if length == #ARGV then
	redis.call('LPUSH', KEYS[1], '0')
	return length
end
return length - 1 + tonumber(redis.call('LINDEX', KEYS[1], 0))`

	// probeScript needs what a note needs, and leaves nothing.
	probeScript = `
redis.call('RPUSH', KEYS[1], ARGV[1])
redis.call('LTRIM', KEYS[1], 1, 0)
return 1`

	// rangeScript returns the position of the first element, whether there are more, and elements, of
	// the span (after, upto] or the newest of it, as many as fit the bounds.
	rangeScript = `
local after, upto, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local mostNotes, mostBytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local length = redis.call('LLEN', KEYS[1])
if length == 0 then return {1, 0} end
local base = tonumber(redis.call('LINDEX', KEYS[1], 0))
local last = math.min(upto - base, length - 1)
local first = math.max(after - base, 0)
if newest > 0 then first = math.max(first, last - newest) end
local result, bytes = {base + first + 1, 0}, 0
local function more() result[2] = 1; return result end
while first < last do
	local stop = math.min(first + 16, last, first + mostNotes - (#result - 2))
	for _, element in ipairs(redis.call('LRANGE', KEYS[1], first + 1, stop)) do
		if #result > 2 and bytes + #element > mostBytes then
			return more()
		end
		bytes = bytes + #element
		result[#result + 1] = element
	end
	first = stop
	if first < last and #result - 2 >= mostNotes then return more() end
end
return result`

	// forgetScript removes elements at the start up to the last one that is old, if those before it are
	// old or dated in the future: see notes.Store. It looks at the elements after a position, before which it
	// has found all to be so, and neither looks at nor removes more than a number of them. Old is what came in
	// before a time, and in the future what came in after another; both are given as two numbers of 32
	// bits, since Lua's have 53. It returns how many it has removed, and the position after which to go on,
	// or -1.
	forgetScript = `
local after, most = tonumber(ARGV[1]), tonumber(ARGV[2])
local beforeHigh, beforeLow = tonumber(ARGV[3]), tonumber(ARGV[4])
local nowHigh, nowLow = tonumber(ARGV[5]), tonumber(ARGV[6])
local base = tonumber(redis.call('LINDEX', KEYS[1], 0) or 0)
local first = math.max(after - base, 0)
local looked, old, step, more = first, 0, 1, true
while more and looked < first + most do
	local elements = redis.call('LRANGE', KEYS[1], looked + 1, math.min(looked + step, first + most))
	more = #elements > 0
	for _, element in ipairs(elements) do
		local high, low = struct.unpack('>I4I4', element)
		local isOld = high < beforeHigh or (high == beforeHigh and low < beforeLow)
		if not isOld and (high < nowHigh or (high == nowHigh and low <= nowLow)) then
			more = false
			break
		end
		looked = looked + 1
		if isOld then old = looked end
	end
	step = 16
end
local count = math.min(old, most)
if count > 0 then
	redis.call('LTRIM', KEYS[1], count + 1, -1)
	redis.call('LPUSH', KEYS[1], string.format('%.0f', base + count))
end
if count < old then return {count, base + first} end
if more then return {count, base + looked} end
return {count, -1}`
)

// parseRange returns what rangeScript has returned.
func parseRange(reply []rueidis.RedisMessage) (chunk []notes.Note, more bool, err error) {
	if len(reply) < 2 {
		return nil, false, errors.New("a range has no position")
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
