// Package load is a load generator for RouteChat, with a closed loop or at a fixed rate, against any server of the
// contract over gRPC. It reports throughput and latency. It reads and writes HTTP/2 frames itself, so that the
// generator is not the bottleneck. Of RouteGuide it knows only the encoding of a note.
package load

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"

	"example.com/routeguide/internal/places"
)

// A Mode is a pattern of traffic.
type Mode string

// The modes.
const (
	// OneAtATime keeps one note of each chat in flight.
	OneAtATime Mode = "one-at-a-time"
	// WrittenAhead keeps Options.Ahead notes of each chat in flight.
	WrittenAhead Mode = "written-ahead"
	// Replay is OneAtATime at locations with a history, which each reply returns in full.
	Replay Mode = "replay"
	// Idle sends one note on each chat, and then nothing.
	Idle Mode = "idle"
)

// MinNoteBytes is the shortest text of a note, in bytes: an ID that matches the reply to the note.
const MinNoteBytes = 24

const (
	dialTimeout = 10 * time.Second
	// endTimeout is the timeout for the last replies and for the ends of the streams.
	endTimeout = 10 * time.Second
)

// Options are the target and the shape of a load.
type Options struct {
	// Address is the server's host:port.
	Address string
	// TLS is the client's configuration of TLS. Nil means cleartext. It is not changed.
	TLS *tls.Config
	// Token is the bearer token of each call. Empty means none.
	Token string
	Mode  Mode
	// Connections and Chats are numbers. The chats are spread evenly over the connections.
	Connections, Chats int
	// Ahead is the number of notes in flight on each chat, in the mode WrittenAhead.
	Ahead int
	// History is the number of notes at each location before the measurement, in the mode Replay.
	History int
	// Locations is the number of locations. 0 means a new location for each note, for each chat in the mode Replay, or a
	// million if they are Clustered.
	Locations int
	// Clustered leaves most notes at few locations in few cities, as people do: see [places.Generator].
	Clustered bool
	// Seed determines the locations; 0 is a new one for each run.
	Seed uint64
	// NoteBytes is the length of a note's text in bytes, at least [MinNoteBytes].
	NoteBytes int
	// Rate is the number of notes per second over all chats, sent in an open loop: latency counts from the time
	// at which a note was due. 0 means a closed loop: the next note follows the reply.
	Rate float64
	// Duration is the length of the measurement.
	Duration time.Duration
	// Notes ends the measurement early, after this many notes. 0 means no limit.
	Notes int64
	// OnProgress is called once a second, unless it is nil.
	OnProgress func(Progress)
}

// Check returns an error that names the first invalid option.
func (o *Options) Check() error {
	_, _, err := net.SplitHostPort(o.Address)
	switch {
	case err != nil:
		return err
	case o.Mode != OneAtATime && o.Mode != WrittenAhead && o.Mode != Replay && o.Mode != Idle:
		return fmt.Errorf("%q is no mode: want %s, %s, %s or %s", o.Mode, OneAtATime, WrittenAhead, Replay, Idle)
	case o.Connections < 1 || o.Chats < o.Connections:
		return fmt.Errorf("%d connections and %d chats: want at least one connection, and a chat for each", o.Connections, o.Chats)
	case o.Mode == WrittenAhead && o.Ahead < 1:
		return fmt.Errorf("%d notes ahead: want at least 1", o.Ahead)
	case math.IsInf(o.Rate, 0) || math.IsNaN(o.Rate):
		return fmt.Errorf("%g notes per second: want a number", o.Rate)
	case o.Locations < 0 || o.History < 0 || o.Notes < 0 || o.Rate < 0:
		return errors.New("locations, history, notes and rate: want 0 or more")
	case o.Clustered && o.Mode == Replay:
		return errors.New("clustered: replay has one location for each chat")
	case o.NoteBytes < MinNoteBytes:
		return fmt.Errorf("%d bytes of text: want at least %d, for the ID of the note", o.NoteBytes, MinNoteBytes)
	case o.Duration <= 0:
		return fmt.Errorf("duration %v: want more than 0", o.Duration)
	case o.Rate > 0 && (o.Mode == Idle || o.Mode == WrittenAhead):
		return fmt.Errorf("%s has no rate: it is a closed loop", o.Mode)
	default:
		return nil
	}
}

// Progress is the state of a running load.
type Progress struct {
	Elapsed time.Duration
	// NotesPerSecond is the number of notes received in the last second.
	NotesPerSecond float64
	// Errors is the number of chats that ended with an error.
	Errors int64
}

// A Result is a measurement. Other programs read its JSON.
type Result struct {
	Mode        Mode    `json:"mode"`
	Address     string  `json:"address"`
	Connections int     `json:"connections"`
	Chats       int     `json:"chats"`
	Rate        float64 `json:"rate,omitempty"`
	// Seed determined the locations.
	Seed uint64 `json:"seed"`
	// Seconds is the time from the first note to the last reply.
	Seconds float64 `json:"seconds"`
	// NotesSent is the number of notes sent, and Replies the number of them that were answered.
	NotesSent int64 `json:"notesSent"`
	Replies   int64 `json:"replies"`
	// NotesReceived is the number of notes in all replies: a reply has every note of its location.
	NotesReceived  int64   `json:"notesReceived"`
	NotesPerSecond float64 `json:"notesPerSecond"`
	// Latency is the time from sending a note, or from its due time with a rate, to the last note of its reply.
	Latency       Latency `json:"latency"`
	BytesSent     int64   `json:"bytesSent"`
	BytesReceived int64   `json:"bytesReceived"`
	// Errors is the number of chats that ended with an error or lack replies, and FirstError the first one's error.
	Errors     int64  `json:"errors"`
	FirstError string `json:"firstError,omitempty"`
}

// Latency has percentiles and the maximum, in milliseconds.
type Latency struct {
	P50  float64 `json:"p50ms"`
	P99  float64 `json:"p99ms"`
	P999 float64 `json:"p999ms"`
	Max  float64 `json:"maxms"`
}

// run is the state of one Run.
type run struct {
	options     Options
	id          string // random; distinguishes the notes of this run from those of others
	places      places.Generator
	connections []*connection
	chats       []*chat

	notes     atomic.Int64  // sent
	received  atomic.Int64  // notes
	replies   atomic.Int64  // notes with a complete reply
	failed    atomic.Int64  // chats
	openChats atomic.Int64  // chats that have not ended
	measuring atomic.Bool   // the histories are written
	stopped   atomic.Bool   // no more notes are sent
	done      chan struct{} // closed by stop

	mu         sync.Mutex // guards the rest
	firstError error      // of the first chat that failed
	once       sync.Once  // closes done
}

// Run puts load on a server for options.Duration, or until ctx ends. It returns an error if the load could not be
// started. Errors of single chats are in the result.
func Run(ctx context.Context, options Options) (*Result, error) {
	if err := options.Check(); err != nil {
		return nil, err
	}
	var random [4 + 8]byte
	if _, err := rand.Read(random[:]); err != nil {
		return nil, err
	}
	run := &run{
		options: options,
		id:      hex.EncodeToString(random[:4]),
		places:  places.Generator{Seed: options.Seed, Count: options.Locations, Clustered: options.Clustered},
		done:    make(chan struct{}),
	}
	if options.Seed == 0 {
		run.places.Seed = binary.BigEndian.Uint64(random[4:]) >> 1 // JSON numbers keep it.
	}
	defer run.close()
	if err := run.connect(ctx); err != nil {
		return nil, err
	}
	if options.Mode == Replay {
		if err := run.writeHistory(ctx); err != nil {
			return nil, fmt.Errorf("write the histories: %w", err)
		}
	}
	run.measuring.Store(true)
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
	r.openChats.Store(int64(len(r.chats)))
	for _, connection := range r.connections {
		connection.start()
	}
	return nil
}

// writeHistory writes the history of each location, and resets the counters.
func (r *run) writeHistory(ctx context.Context) error {
	writers := r.chats[:min(len(r.chats), r.locations())]
	for _, chat := range writers {
		chat.start(r.options.History)
	}
	for _, chat := range writers {
		if err := chat.awaitReplies(ctx, 10*endTimeout); err != nil {
			return err
		}
	}
	if r.failed.Load() > 0 {
		r.mu.Lock()
		defer r.mu.Unlock()
		return r.firstError
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

// load sends notes for options.Duration, and waits for the replies. It returns the time until the last reply.
func (r *run) load(ctx context.Context, start time.Time) time.Duration {
	timer := time.NewTimer(r.options.Duration)
	defer timer.Stop()
	ticker := time.NewTicker(time.Second)
	defer ticker.Stop()
	sendCtx, cancelSend := context.WithCancel(ctx)
	defer cancelSend()
	var sender sync.WaitGroup
	if r.options.Rate > 0 {
		sender.Go(func() { r.sendAtRate(sendCtx, start) })
	} else {
		for _, chat := range r.chats {
			chat.start(0)
		}
	}
	last := int64(0)
	for waiting := true; waiting; {
		select {
		case <-ticker.C:
			received := r.received.Load()
			if r.options.OnProgress != nil {
				r.options.OnProgress(Progress{Elapsed: time.Since(start), NotesPerSecond: float64(received - last), Errors: r.failed.Load()})
			}
			last = received
		case <-timer.C:
			waiting = false
		case <-r.done:
			waiting = false
		case <-ctx.Done():
			waiting = false
		}
	}
	r.stopped.Store(true)
	cancelSend()
	sender.Wait()
	// Late replies count, and so does the time that they take.
	endCtx, cancel := context.WithTimeout(context.WithoutCancel(ctx), endTimeout)
	defer cancel()
	for _, chat := range r.chats {
		if err := chat.awaitReplies(endCtx, endTimeout); err != nil {
			chat.fail(err)
		}
	}
	elapsed := time.Since(start)
	for _, chat := range r.chats {
		chat.closeSend()
	}
	for _, chat := range r.chats {
		if err := chat.awaitEnd(endCtx); err != nil {
			chat.fail(err)
		}
	}
	return elapsed
}

// sendAtRate sends notes at options.Rate, round-robin over the chats.
func (r *run) sendAtRate(ctx context.Context, start time.Time) {
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

// nextNumber returns the number of the next note to send, and false once the run stops.
func (r *run) nextNumber() (int64, bool) {
	if r.stopped.Load() {
		return 0, false
	}
	number := r.notes.Add(1) - 1
	if r.options.Notes > 0 && number >= r.options.Notes && r.measuring.Load() {
		r.notes.Add(-1)
		r.stop()
		return 0, false
	}
	return number, true
}

// stop ends the measurement early.
func (r *run) stop() {
	r.stopped.Store(true)
	r.once.Do(func() { close(r.done) })
}

// locations returns the number of locations, or 0 if each note has a new one.
func (r *run) locations() int {
	if r.options.Locations == 0 && r.options.Mode == Replay {
		return r.options.Chats
	}
	return r.options.Locations
}

// location returns the location of a note, in E7 degrees.
func (r *run) location(chat int, number int64) (latitude, longitude int32) {
	if r.options.Mode == Replay {
		return places.Generator{Seed: r.places.Seed}.At(int64(chat % r.locations()))
	}
	return r.places.At(number)
}

func (r *run) fail(err error) {
	r.failed.Add(1)
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.firstError == nil {
		r.firstError = err
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
		Seed:           r.places.Seed,
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
	if r.firstError != nil {
		result.FirstError = r.firstError.Error()
	}
	return result
}

func (r *run) close() {
	for _, connection := range r.connections {
		connection.close()
	}
}

// newHistogram returns a histogram in microseconds, up to ten minutes, with three significant digits.
func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(1, (10 * time.Minute).Microseconds(), 3)
}

func milliseconds(microseconds int64) float64 {
	return float64(microseconds) / 1000
}
