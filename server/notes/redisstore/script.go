package redisstore

import (
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/rueidis"

	"example.com/routeguide/server/notes"
)

// What is in Redis. The log of a location is a list; an element is the time of a note, 8 bytes
// big-endian, and the encoded note. A note's position is its index in the list, counted from 1, plus
// the base, which is how many notes were forgotten before. The hash tag has both keys in one slot:
//
//	routeguide:{LATITUDE,LONGITUDE}       the list
//	routeguide:{LATITUDE,LONGITUDE}:base  the base; not there until something is forgotten
//
// The base outlives the list, so that no position is given twice.
const (
	keyPrefix  = "routeguide:{"
	keySuffix  = "}"
	keyPattern = "routeguide:{*}"
	baseSuffix = ":base"
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
return length + tonumber(redis.call('GET', KEYS[2]) or '0')`

	// rangeScript returns the position of the first element, whether there are more, and elements, of
	// the span (after, upto] or the newest of it, as many as fit the bounds.
	rangeScript = `
local after, upto, newest = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local mostNotes, mostBytes = tonumber(ARGV[4]), tonumber(ARGV[5])
local base = tonumber(redis.call('GET', KEYS[2]) or '0')
local last = math.min(upto - base, redis.call('LLEN', KEYS[1]))
local first = math.max(after - base, 0)
if newest > 0 then first = math.max(first, last - newest) end
local result, bytes = {base + first + 1, 0}, 0
local function more() result[2] = 1; return result end
while first < last do
	local stop = math.min(first + 16, last, first + mostNotes - (#result - 2))
	for _, element in ipairs(redis.call('LRANGE', KEYS[1], first, stop - 1)) do
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

	// forgetScript removes the elements at the start that are older than a time, given as two
	// numbers of 32 bits since Lua's have 53, but not more than a number. It returns how many.
	forgetScript = `
local high, low, most = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local count = 0
for _, element in ipairs(redis.call('LRANGE', KEYS[1], 0, most - 1)) do
	local thisHigh, thisLow = struct.unpack('>I4I4', element)
	if thisHigh > high or (thisHigh == high and thisLow >= low) then break end
	count = count + 1
end
if count > 0 then
	redis.call('LTRIM', KEYS[1], count, -1)
	redis.call('INCRBY', KEYS[2], count)
end
return count`
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
