package wire

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/net/http2"
)

const testWindow = 1000

// framed returns what a call writes with a framer.
func framed(write func(*http2.Framer) error) []byte {
	var frames bytes.Buffer
	framer := http2.NewFramer(&frames, nil)
	framer.AllowIllegalWrites = true
	if err := write(framer); err != nil {
		panic(err)
	}
	return frames.Bytes()
}

func settings(window uint32) []byte {
	return framed(func(framer *http2.Framer) error {
		return framer.WriteSettings(http2.Setting{ID: http2.SettingMaxFrameSize, Val: 1 << 20}, http2.Setting{ID: http2.SettingInitialWindowSize, Val: window})
	})
}

func update(stream, length uint32) []byte {
	return framed(func(framer *http2.Framer) error { return framer.WriteWindowUpdate(stream, length) })
}

// reply returns what net/http may write on a connection, and what the client is to see of it.
func reply(random *rand.Rand, count int) (written, shown []byte) {
	written, shown = settings(StreamBuffer), settings(testWindow)
	for i := range count {
		stream := uint32(2*random.IntN(4) + 1)
		payload := bytes.Repeat([]byte{byte(i)}, random.IntN(100))
		frame := framed(func(framer *http2.Framer) error {
			switch random.IntN(8) {
			case 0:
				return framer.WriteWindowUpdate(0, 1+random.Uint32N(100))
			case 1:
				return framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, BlockFragment: payload, EndHeaders: true, EndStream: random.IntN(2) == 0})
			case 2:
				return framer.WriteRSTStream(stream, http2.ErrCodeCancel)
			case 3, 4:
				return framer.WriteData(stream, random.IntN(9) == 0, payload)
			case 5:
				return framer.WriteRawFrame(http2.FrameWindowUpdate, 0, stream, payload) // That is none.
			default:
				return framer.WriteWindowUpdate(stream, 1+random.Uint32N(1<<30))
			}
		})
		written = append(written, frame...)
		if isUpdate := frame[3] == typeWindowUpdate && len(frame) == windowUpdateSize; !isUpdate || binary.BigEndian.Uint32(frame[5:]) == 0 {
			shown = append(shown, frame...)
		}
	}
	return written, shown
}

func TestTheClientSeesAllButTheWindowsOfStreams(t *testing.T) {
	t.Parallel()
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 1))
		frames, want := reply(random, 100)
		below := &recorded{}
		conn := newCalmConn(below, testWindow)
		first := len(settings(0))
		write(t, conn, frames[:first])
		for rest := frames[first:]; len(rest) > 0; {
			part := rest[:min(len(rest), 1+random.IntN([]int{3, 30, 300}[seed%3]))]
			rest = rest[len(part):]
			write(t, conn, part)
		}
		if got := strings.Join(below.writes, ""); got != string(want) {
			t.Fatalf("seed %d: %d bytes are shown, want %d", seed, len(got), len(want))
		}
	}
}

// slow is a connection that takes few bytes at a time, as it does with a deadline.
type slow struct {
	net.Conn

	most  int
	taken bytes.Buffer
}

func (s *slow) Write(p []byte) (int, error) {
	n, _ := s.taken.Write(p[:min(len(p), s.most)])
	if n < len(p) {
		return n, os.ErrDeadlineExceeded
	}
	return n, nil
}

// What net/http does when its deadlines for writes pass, but some bytes have gone.
func TestAWriteThatIsCutShortGoesOn(t *testing.T) {
	t.Parallel()
	for most := 1; most < 60; most++ {
		below := &slow{most: 1000}
		conn := newCalmConn(below, testWindow)
		write(t, conn, settings(StreamBuffer))
		below.taken.Reset()
		below.most = most
		sent := append(data("0123456789012345678901234567890123456789"), update(0, 7)...)
		for rest := sent; len(rest) > 0; {
			n, err := conn.Write(rest)
			if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		below.most = 1000
		write(t, conn, append(update(1, 5), data("end")...))
		if got, want := below.taken.Bytes(), append(sent, data("end")...); !bytes.Equal(got, want) {
			t.Errorf("%d bytes at a time: got %x, want %x", most, got, want)
		}
	}
}

func TestOtherConnectionsKeepTheirWindows(t *testing.T) {
	t.Parallel()
	for name, first := range map[string][]byte{
		"HTTP/1.1":                 []byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"),
		"net/http has small ones":  settings(1 << 20),
		"net/http does not say so": framed(func(framer *http2.Framer) error { return framer.WriteSettings() }),
	} {
		below := &recorded{}
		conn := newCalmConn(below, testWindow)
		write(t, conn, first)
		write(t, conn, update(1, 5))
		if got, want := strings.Join(below.writes, ""), string(first)+string(update(1, 5)); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

// talking is a connection on which a client has sent something.
type talking struct {
	recorded

	sent io.Reader
}

func (t *talking) Read(p []byte) (int, error) { return t.sent.Read(p) }

func TestWhatWasReadIsGivenBack(t *testing.T) {
	t.Parallel()
	type step struct {
		stream, read uint32 // what net/http gives back, of which nothing is read here
		want         string // what the client sees
	}
	shown := func(frames ...[]byte) string { return string(bytes.Join(frames, nil)) }
	for name, test := range map[string]struct {
		sent  map[uint32]int // DATA by stream
		steps []step
	}{
		"a stream that is read": {map[uint32]int{1: 600}, []step{{0, 600, shown(update(0, 600), update(1, 600))}, {1, 600, ""}}},
		"little of one":         {map[uint32]int{1: 249}, []step{{0, 249, shown(update(0, 249))}, {1, 249, ""}}},
		"one that is not read, while little is unread": {
			map[uint32]int{1: 600, 3: 300},
			[]step{{0, 300, shown(update(0, 300), update(1, 600), update(3, 300))}},
		},
		"some that are not read, and one that is": {
			map[uint32]int{1: 1000, 3: 1000, 5: 1000, 7: 1000, 9: 1000},
			[]step{{0, 500, shown(update(0, 500))}, {9, 500, shown(update(9, 500))}, {0, 400, shown(update(0, 400))}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				below := &talking{sent: bytes.NewReader(append([]byte(preface), framed(func(framer *http2.Framer) error {
					err := framer.WriteSettings()
					for stream := uint32(1); stream < 11; stream += 2 {
						if length := test.sent[stream]; length > 0 {
							err = errors.Join(err, framer.WriteHeaders(http2.HeadersFrameParam{StreamID: stream, EndHeaders: true}), framer.WriteData(stream, false, make([]byte, length)))
						}
					}
					return err
				})...))}
				conn := newCalmConn(below, testWindow)
				write(t, conn, settings(StreamBuffer))
				if _, err := io.Copy(io.Discard, conn); err != nil {
					t.Fatal(err)
				}
				for i, step := range test.steps {
					below.writes = nil
					write(t, conn, update(step.stream, step.read))
					time.Sleep(2 * holdFor)
					synctest.Wait()
					if got := inOrder(strings.Join(below.writes, "")); got != inOrder(step.want) {
						t.Errorf("step %d: the client sees %s, want %s", i, got, inOrder(step.want))
					}
				}
				if err := conn.Close(); err != nil {
					t.Error(err)
				}
			})
		})
	}
}

// inOrder returns frames of WINDOW_UPDATE as a text, ordered by streams.
func inOrder(frames string) string {
	var lengths [11]uint32
	for ; len(frames) >= windowUpdateSize; frames = frames[windowUpdateSize:] {
		lengths[binary.BigEndian.Uint32([]byte(frames[5:]))] += binary.BigEndian.Uint32([]byte(frames[9:]))
	}
	return fmt.Sprint(lengths, len(frames))
}
