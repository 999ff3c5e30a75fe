// Package load puts load on a RouteGuide server, any server of the contract over gRPC, and says how fast it
// answers. It writes and reads frames of HTTP/2 by itself, so that it is not the limit, and knows of
// RouteGuide no more than how a note is encoded.
package load

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// A Mode is a way in which clients chat.
type Mode string

// The modes.
const (
	// OneAtATime is when a chat writes a note once it has the reply to the one before.
	OneAtATime Mode = "one-at-a-time"
	// WrittenAhead is when a chat writes notes before it has replies.
	WrittenAhead Mode = "written-ahead"
	// Replay is OneAtATime at locations that have a history, which each reply replays.
	Replay Mode = "replay"
	// Idle is when each chat writes one note, and then is silent.
	Idle Mode = "idle"
)

// MinNoteBytes is how long the text of a note must be, to say whose it is.
const MinNoteBytes = 24

const (
	dialTimeout = 10 * time.Second
	// endTimeout is how long replies and the ends of chats are waited for, when the time is over.
	endTimeout = 10 * time.Second
)

// Options say what load to put on a server.
type Options struct {
	// Address is the server's host:port.
	Address string
	// TLS is how to speak TLS. Without it, the server is spoken to in clear. It is not changed.
	TLS *tls.Config
	// Token is shown to the server, unless it is empty, as a bearer token.
	Token string
	Mode  Mode
	// Connections and Chats are how many there are; the chats are spread over the connections.
	Connections, Chats int
	// Ahead is how many notes a chat writes ahead, in the mode WrittenAhead.
	Ahead int
	// History is how many notes each location has at the start, in the mode Replay. They are written
	// before the time begins.
	History int
	// Locations is how many there are. With 0, each note is left at a location of its own, and in the
	// mode Replay each chat has one.
	Locations int
	// NoteBytes is how long the text of a note is, at least [MinNoteBytes].
	NoteBytes int
	// Rate is how many notes are written in a second, by all chats, whether replies have come or not:
	// with that, latency counts from when a note was due. With 0, a chat waits for replies.
	Rate float64
	// Duration is how long notes are written.
	Duration time.Duration
	// Notes ends the load earlier, when so many have been written. 0 is no bound.
	Notes int64
	// Show is called once a second, unless it is nil.
	Show func(Progress)
}

// Check returns an error that says what makes no sense.
func (o *Options) Check() error {
	_, _, err := net.SplitHostPort(o.Address)
	switch {
	case err != nil:
		return err
	case o.Mode != OneAtATime && o.Mode != WrittenAhead && o.Mode != Replay && o.Mode != Idle:
		return fmt.Errorf("%q is no mode: want %s, %s, %s or %s", o.Mode, OneAtATime, WrittenAhead, Replay, Idle)
	case o.Connections < 1 || o.Chats < o.Connections:
		return fmt.Errorf("%d connections and %d chats: want one connection at least, and a chat for each", o.Connections, o.Chats)
	case o.Mode == WrittenAhead && o.Ahead < 1:
		return fmt.Errorf("%d notes ahead: want 1 at least", o.Ahead)
	case math.IsInf(o.Rate, 0) || math.IsNaN(o.Rate):
		return fmt.Errorf("%g notes a second: want a number", o.Rate)
	case o.Locations < 0 || o.History < 0 || o.Notes < 0 || o.Rate < 0:
		return errors.New("locations, history, notes and rate: want 0 or more")
	case o.NoteBytes < MinNoteBytes:
		return fmt.Errorf("%d bytes of text: want %d at least, which say whose note it is", o.NoteBytes, MinNoteBytes)
	case o.Duration <= 0:
		return fmt.Errorf("%v: want a time to put load on", o.Duration)
	case o.Rate > 0 && (o.Mode == Idle || o.Mode == WrittenAhead):
		return fmt.Errorf("%s has no rate: chats wait for nothing but replies", o.Mode)
	default:
		return nil
	}
}

// Progress is how far a load is.
type Progress struct {
	Elapsed time.Duration
	// NotesPerSecond is how many notes came back in the last second.
	NotesPerSecond float64
	// Errors is how many chats have ended with an error.
	Errors int64
}

// A Result is what came of a load. Its JSON is for other programs.
type Result struct {
	Mode        Mode    `json:"mode"`
	Address     string  `json:"address"`
	Connections int     `json:"connections"`
	Chats       int     `json:"chats"`
	Rate        float64 `json:"rate,omitempty"`
	// Seconds is how long notes were written, and replies to them awaited.
	Seconds float64 `json:"seconds"`
	// NotesSent is how many notes were written, and Replies how many of them were answered.
	NotesSent int64 `json:"notesSent"`
	Replies   int64 `json:"replies"`
	// NotesReceived is how many notes came back: a reply has all notes of its location.
	NotesReceived  int64   `json:"notesReceived"`
	NotesPerSecond float64 `json:"notesPerSecond"`
	// Latency is from when a note was written, or was due, until its reply was whole.
	Latency       Latency `json:"latency"`
	BytesSent     int64   `json:"bytesSent"`
	BytesReceived int64   `json:"bytesReceived"`
	// Errors is how many chats ended with an error or lack replies, and FirstError says what it was.
	Errors     int64  `json:"errors"`
	FirstError string `json:"firstError,omitempty"`
}

// Latency is how long replies took, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50ms"`
	P99  float64 `json:"p99ms"`
	P999 float64 `json:"p999ms"`
	Max  float64 `json:"maxms"`
}

// run is a load while it goes on.
type run struct {
	options     Options
	id          string // tells the notes of this run from those of others
	latitude    int32  // where those notes are that have a location of their own
	connections []*connection
	chats       []*chat

	notes    atomic.Int64 // that have been written
	received atomic.Int64
	replies  atomic.Int64
	failed   atomic.Int64
	live     atomic.Int64 // chats that have not ended
	counting atomic.Bool  // the time has begun
	over     atomic.Bool  // no more notes are to be written
	finished chan struct{}

	mu    sync.Mutex // guards the rest
	first error      // what the first chat has ended with that has failed
	once  sync.Once  // closes finished
}

// Run puts load on a server until the time is over, or ctx ends. It returns what came of it, and an error
// if there was no load.
func Run(ctx context.Context, options Options) (*Result, error) {
	if err := options.Check(); err != nil {
		return nil, err
	}
	var random [4 + 4]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	run := &run{
		options:  options,
		id:       hex.EncodeToString(random[:4]),
		latitude: int32(uint32(random[4])<<16 | uint32(random[5])<<8 | uint32(random[6])),
		finished: make(chan struct{}),
	}
	defer run.close()
	if err := run.connect(ctx); err != nil {
		return nil, err
	}
	if options.Mode == Replay {
		if err := run.writeHistory(ctx); err != nil {
			return nil, fmt.Errorf("write the histories to replay: %w", err)
		}
	}
	run.counting.Store(true)
	before := run.bytes()
	start := time.Now()
	elapsed := run.load(ctx, start)
	result := run.result(elapsed)
	result.BytesSent -= before.sent
	result.BytesReceived -= before.received
	return result, nil
}

// connect opens the connections and chats.
func (r *run) connect(ctx context.Context) error {
	for range r.options.Connections {
		connection, err := dial(ctx, r)
		if err != nil {
			return err
		}
		r.connections = append(r.connections, connection)
	}
	for i := range r.options.Chats {
		chat, err := r.connections[i%len(r.connections)].open(i)
		if err != nil {
			return err
		}
		r.chats = append(r.chats, chat)
	}
	r.live.Store(int64(len(r.chats)))
	for _, connection := range r.connections {
		connection.start()
	}
	return nil
}

// writeHistory gives each location its history.
func (r *run) writeHistory(ctx context.Context) error {
	writers := r.chats[:min(len(r.chats), r.locations())]
	for _, chat := range writers {
		chat.begin(r.options.History)
	}
	for _, chat := range writers {
		if err := chat.awaitReplies(ctx, 10*endTimeout); err != nil {
			return err
		}
	}
	if r.failed.Load() > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.first
	}
	r.notes.Store(0)
	r.received.Store(0)
	r.replies.Store(0)
	for _, connection := range r.connections {
		connection.mu.Lock()
		connection.latency.Reset()
		connection.mu.Unlock()
	}
	return nil
}

// load writes notes until the time is over, and returns how long that took, with the replies.
func (r *run) load(ctx context.Context, start time.Time) time.Duration {
	timer := time.NewTimer(r.options.Duration)
	defer timer.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	pacing, stop := context.WithCancel(ctx)
	defer stop()
	var paced sync.WaitGroup
	if r.options.Rate > 0 {
		paced.Go(func() { r.pace(pacing, start) })
	} else {
		for _, chat := range r.chats {
			chat.begin(0)
		}
	}
	last := int64(0)
	for waiting := true; waiting; {
		select {
		case <-ticker.C:
			received := r.received.Load()
			if r.options.Show != nil {
				r.options.Show(Progress{Elapsed: time.Since(start), NotesPerSecond: float64(received - last), Errors: r.failed.Load()})
			}
			last = received
		case <-timer.C:
			waiting = false
		case <-r.finished:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	r.over.Store(true)
	stop()
	paced.Wait()
	// Replies that are late count, and so does the time that they take.
	ending, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	for _, chat := range r.chats {
		if err := chat.awaitReplies(ending, endTimeout); err != nil {
			chat.fail(err)
		}
	}
	elapsed := time.Since(start)
	for _, chat := range r.chats {
		chat.closeSend()
	}
	for _, chat := range r.chats {
		if err := chat.awaitEnd(ending); err != nil {
			chat.fail(err)
		}
	}
	return elapsed
}

// pace writes notes at the rate, by one chat after the other.
func (r *run) pace(ctx context.Context, start time.Time) {
	interval := float64(time.Second) / r.options.Rate
	dueAt := func(number int64) time.Time { return start.Add(time.Duration(float64(number) * interval)) }
	for number, more := int64(0), true; more && ctx.Err() == nil; {
		due := min(int64(float64(time.Since(start))/interval)+1, number+int64(len(r.chats)))
		for ; more && number < due; number++ {
			more = r.chats[number%int64(len(r.chats))].write(dueAt(number))
		}
		for _, connection := range r.connections {
			connection.flush()
		}
		if wait := time.Until(dueAt(number)); wait > 0 {
			time.Sleep(min(wait, time.Second/10))
		}
	}
}

// take returns the number of a note that may be written, and false if no more may.
func (r *run) take() (int64, bool) {
	if r.over.Load() {
		return 0, false
	}
	number := r.notes.Add(1) - 1
	if r.options.Notes > 0 && number >= r.options.Notes && r.counting.Load() {
		r.notes.Add(-1)
		r.finish()
		return 0, false
	}
	return number, true
}

// finish ends the time early.
func (r *run) finish() {
	r.over.Store(true)
	r.once.Do(func() { close(r.finished) })
}

// locations returns how many locations there are, or 0 if each note has its own.
func (r *run) locations() int {
	if r.options.Locations == 0 && r.options.Mode == Replay {
		return r.options.Chats
	}
	return r.options.Locations
}

// location returns where a chat leaves a note, in E7 degrees.
func (r *run) location(chat int, number int64) (latitude, longitude int32) {
	locations := int64(r.locations())
	switch {
	case locations == 0:
		const longitudes = 360_0000000
		return r.latitude + int32(number/longitudes), int32(number%longitudes - longitudes/2)
	case r.options.Mode == Replay:
		return -r.latitude, int32(int64(chat) % locations)
	default:
		return -r.latitude, int32(number % locations)
	}
}

func (r *run) fail(err error) {
	r.failed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		r.first = err
	}
}

type traffic struct{ sent, received int64 }

func (r *run) bytes() traffic {
	var sum traffic
	for _, connection := range r.connections {
		sum.sent += connection.sent.Load()
		sum.received += connection.received.Load()
	}
	return sum
}

func (r *run) result(elapsed time.Duration) *Result {
	latency := newHistogram()
	for _, connection := range r.connections {
		connection.mu.Lock()
		latency.Merge(connection.latency)
		connection.mu.Unlock()
	}
	traffic := r.bytes()
	result := &Result{
		Mode:           r.options.Mode,
		Address:        r.options.Address,
		Connections:    r.options.Connections,
		Chats:          r.options.Chats,
		Rate:           r.options.Rate,
		Seconds:        elapsed.Seconds(),
		NotesSent:      r.notes.Load(),
		Replies:        r.replies.Load(),
		NotesReceived:  r.received.Load(),
		NotesPerSecond: float64(r.received.Load()) / elapsed.Seconds(),
		Latency: Latency{
			P50:  milliseconds(latency.ValueAtQuantile(50)),
			P99:  milliseconds(latency.ValueAtQuantile(99)),
			P999: milliseconds(latency.ValueAtQuantile(99.9)),
			Max:  milliseconds(latency.Max()),
		},
		BytesSent:     traffic.sent,
		BytesReceived: traffic.received,
		Errors:        r.failed.Load(),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first != nil {
		result.FirstError = r.first.Error()
	}
	return result
}

func (r *run) close() {
	for _, connection := range r.connections {
		connection.close()
	}
}

// newHistogram returns a histogram of microseconds, up to ten minutes, with three digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

func milliseconds(microseconds int64) float64 {
	return float64(microseconds) / 1000
}
