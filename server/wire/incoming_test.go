package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"testing"
	"testing/iotest"

	"golang.org/x/net/http2"
)

// seen is what a receiver makes of a connection: the order of what has one, and the bytes of each
// stream.
type seen struct {
	frames  []string // all but DATA and PING
	streams map[uint32]string
	pings   []string
	data    int // how many frames of DATA
	err     error
}

// receive reads frames until there are no more.
func receive(from io.Reader) *seen {
	seen := &seen{streams: make(map[uint32]string)}
	framer := http2.NewFramer(nil, from)
	framer.SetMaxReadFrameSize(1 << 20)
	framer.AllowIllegalReads = true
	for {
		frame, err := framer.ReadFrame()
		if err != nil {
			if _, isStreams := errors.AsType[http2.StreamError](err); isStreams {
				continue
			}
			seen.err = err
			return seen
		}
		id := frame.Header().StreamID
		switch frame := frame.(type) {
		case *http2.DataFrame:
			seen.data++
			seen.streams[id] += string(frame.Data())
			if frame.StreamEnded() {
				seen.streams[id] += "(end)"
			}
		case *http2.PingFrame:
			if !frame.IsAck() {
				seen.pings = append(seen.pings, string(frame.Data[:]))
			}
		case *http2.UnknownFrame:
			if frame.Type != typeMerged {
				seen.frames = append(seen.frames, fmt.Sprintf("%v %x, after %d bytes", frame.Header(), frame.Payload(), len(seen.streams[id])))
			}
		case *http2.WindowUpdateFrame:
			// It is about the other direction.
			seen.frames = append(seen.frames, frame.Header().String())
		default:
			// With what has come of its stream before it: that may not change either.
			seen.frames = append(seen.frames, fmt.Sprintf("%v, after %d bytes", frame.Header(), len(seen.streams[id])))
		}
	}
}

// passed returns what comes out of incoming, and the PINGs it has answered.
func passed(from io.Reader) *seen {
	var pings []string
	in := newIncoming(from, func(data [pingDataSize]byte) error {
		pings = append(pings, string(data[:]))
		return nil
	}, newWindows(1000))
	read := make([]byte, len(preface))
	if n, err := io.ReadFull(in, read); err != nil || string(read) != preface {
		return &seen{err: fmt.Errorf("%q, %w", read[:n], err)}
	}
	seen := receive(in)
	seen.pings = append(seen.pings, pings...)
	return seen
}

// sameAs returns how two receivers have seen different things, or nil.
func (s *seen) sameAs(other *seen) error {
	// The PINGs that incoming answers come after those that it did not, in the list.
	slices.Sort(s.pings)
	slices.Sort(other.pings)
	for _, pair := range [][2]any{{s.frames, other.frames}, {s.pings, other.pings}, {fmt.Sprint(s.err), fmt.Sprint(other.err)}} {
		if got, want := fmt.Sprintf("%q", pair[0]), fmt.Sprintf("%q", pair[1]); got != want {
			return fmt.Errorf("got %s, want %s", got, want)
		}
	}
	if !errors.Is(s.err, io.EOF) && !errors.Is(s.err, io.ErrUnexpectedEOF) {
		return nil // What came with what ends the connection may have been passed on before it.
	}
	for id, want := range other.streams {
		if got := s.streams[id]; got != want {
			return fmt.Errorf("stream %d has %d bytes, other ones than the %d that were sent", id, len(got), len(want))
		}
	}
	return nil
}

// talk returns what a client may send on a connection, with much DATA of a few streams in between.
func talk(random *rand.Rand, count int) []byte {
	var sent bytes.Buffer
	framer := http2.NewFramer(&sent, nil)
	framer.AllowIllegalWrites = true
	write := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	write(framer.WriteSettings())
	for i := range count {
		stream := uint32(2*random.IntN(4) + 1)
		payload := bytes.Repeat([]byte{byte(i)}, random.IntN(200))
		switch random.IntN(40) {
		case 0:
			write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: payload, EndHeaders: true}))
		case 1:
			write(framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: payload}))
			write(framer.WriteContinuation(stream, false, payload))
			write(framer.WriteContinuation(stream, true, nil))
		case 2:
			write(framer.WriteRSTStream(stream, http2.ErrCodeCancel))
		case 3:
			write(framer.WriteDataPadded(stream, false, payload, make([]byte, random.IntN(9))))
		case 4:
			write(framer.WriteRawFrame(http2.FrameType(0x16), 0, stream, payload))
		case 5:
			write(framer.WriteRawFrame(http2.FrameType(typeMerged), 0, stream, payload))
		case 6:
			write(framer.WriteData(stream, random.IntN(4) == 0, bytes.Repeat([]byte("long"), random.IntN(20_000))))
		case 7, 8, 9:
			write(framer.WritePing(random.IntN(4) == 0, [8]byte{byte(i)}))
		case 10, 11:
			write(framer.WriteWindowUpdate(stream, 1+random.Uint32N(100)))
		default:
			write(framer.WriteData(stream, false, payload))
		}
	}
	return sent.Bytes()
}

func TestNothingThatComesInChangesItsMeaning(t *testing.T) {
	t.Parallel()
	for seed := range uint64(60) {
		random := rand.New(rand.NewPCG(seed, 0))
		sent := talk(random, 300)
		if seed%2 == 0 {
			sent = sent[:random.IntN(len(sent))] // and nothing is invented where it is cut
		}
		want := receive(bytes.NewReader(sent))
		sent = append([]byte(preface), sent...)
		for name, from := range map[string]io.Reader{
			"at once":      bytes.NewReader(sent),
			"byte by byte": iotest.OneByteReader(bytes.NewReader(sent)),
			"by halves":    iotest.HalfReader(bytes.NewReader(sent)),
			"in pieces":    &pieces{bytes.NewReader(sent), random},
		} {
			if err := passed(from).sameAs(want); err != nil {
				t.Fatalf("seed %d, %s: %v", seed, name, err)
			}
		}
	}
}

// pieces is read in pieces of any length.
type pieces struct {
	io.Reader

	random *rand.Rand
}

func (p *pieces) Read(b []byte) (int, error) {
	return p.Reader.Read(b[:1+p.random.IntN(min(len(b), 3000))])
}

func TestWhatIsNotHTTP2IsLeftAlone(t *testing.T) {
	t.Parallel()
	for _, sent := range []string{"", "GET / HTTP/1.1\r\n\r\n", preface[:10], preface[:20] + "x" + preface[21:], "\x16\x03\x01" + preface} {
		in := newIncoming(iotest.HalfReader(bytes.NewReader([]byte(sent))), nil, nil)
		if got, err := io.ReadAll(in); string(got) != sent || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, sent)
		}
	}
}

func TestDataThatComesTogetherIsOneFrame(t *testing.T) {
	t.Parallel()
	var sent bytes.Buffer
	framer := http2.NewFramer(&sent, nil)
	if err := framer.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	const streams, notes = 16, 20
	for range notes {
		for stream := range uint32(streams) {
			if err := framer.WriteData(2*stream+1, false, make([]byte, 50)); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, large := range []int{mergeBytes - 20, 30, mergeBytes, 1} {
		if err := framer.WriteData(99, false, make([]byte, large)); err != nil {
			t.Fatal(err)
		}
	}
	// The first read is a small one.
	if got := passed(io.MultiReader(bytes.NewReader([]byte(preface)), bytes.NewReader(sent.Bytes()))); got.data > 4*streams {
		t.Errorf("%d frames of DATA have become %d, want at most %d", streams*notes, got.data, 4*streams)
	}
}

func FuzzIncoming(f *testing.F) {
	for seed := range uint64(8) {
		random := rand.New(rand.NewPCG(seed, 0))
		f.Add(talk(random, 20), uint16(seed))
	}
	f.Fuzz(func(t *testing.T, sent []byte, seed uint16) {
		if len(sent) < frameHeaderSize {
			return
		}
		// Merged frames must not come to exceed what a receiver takes that does not take more.
		if length := int(binary.BigEndian.Uint32(sent) >> 8); length > 1<<20 {
			return
		}
		random := rand.New(rand.NewPCG(uint64(seed), 0))
		want := receive(bytes.NewReader(sent))
		from := &pieces{bytes.NewReader(append([]byte(preface), sent...)), random}
		if err := passed(from).sameAs(want); err != nil {
			t.Error(err)
		}
	})
}
