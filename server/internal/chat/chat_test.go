package chat_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"

	"go.uber.org/goleak"
	"google.golang.org/protobuf/proto"

	"example.com/routeguide/gen/routeguide"
	"example.com/routeguide/server/internal/chat"
	"example.com/routeguide/server/internal/notes"
	"example.com/routeguide/server/internal/notes/memorystore"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

// late is a store that delays the settling of tickets, in batches and in random order. It keeps no note from
// the number failFrom on.
type late struct {
	notes.Store

	failFrom  uint64
	failOnly  bool // fail only the note with the number failFrom
	settling  sync.WaitGroup
	mu        sync.Mutex // guards the rest
	waiting   []func()
	immediate bool // settle without delay
}

var errStore = errors.New("the store's error")

// lateTicket is the owner of a note in the underlying store. It delays the note's own ticket.
type lateTicket struct {
	late   *late
	ticket notes.Ticket
}

func (l lateTicket) Settle(_ uint64, receipt notes.Receipt, err error) {
	l.late.mu.Lock()
	defer l.late.mu.Unlock()
	l.late.waiting = append(l.late.waiting, func() { l.ticket.Settle(receipt, err) })
	if len(l.late.waiting) >= 7 || l.late.immediate {
		l.late.settle()
	}
}

// settle settles the delayed tickets on a new goroutine. The caller holds l.mu.
func (l *late) settle() {
	waiting := l.waiting
	l.waiting = nil
	rand.Shuffle(len(waiting), func(i, j int) { waiting[i], waiting[j] = waiting[j], waiting[i] })
	l.settling.Go(func() {
		for _, settle := range waiting {
			settle()
		}
	})
}

func (l *late) Append(ctx context.Context, location notes.Location, note notes.Note, ticket notes.Ticket) {
	if ticket.Number == l.failFrom || ticket.Number > l.failFrom && !l.failOnly {
		lateTicket{l, ticket}.Settle(0, notes.Receipt{}, errStore)
		return
	}
	l.Store.Append(ctx, location, note, notes.Ticket{Owner: lateTicket{l, ticket}})
}

// session is the stream of a client in the same process.
type session struct {
	late     *late
	sent     []*routeguide.RouteNote
	open     bool // the client does not close its side
	next     int
	stop     chan struct{}
	once     sync.Once
	buffered []string // sent, not flushed
	got      []string // flushed
}

func (s *session) Receive() ([]byte, error) {
	if s.next < len(s.sent) {
		s.next++
		return proto.Marshal(s.sent[s.next-1])
	}
	s.late.mu.Lock()
	s.late.settle()
	s.late.mu.Unlock()
	if s.open {
		<-s.stop
		return nil, context.DeadlineExceeded
	}
	return nil, io.EOF
}

func (s *session) Send(chunk []notes.Note) error {
	for _, sent := range chunk {
		var note routeguide.RouteNote
		if err := proto.Unmarshal(sent.Encoded, &note); err != nil {
			return err
		}
		s.buffered = append(s.buffered, note.GetMessage())
	}
	return nil
}

func (s *session) TrySend(encoded []byte) bool {
	return rand.IntN(2) == 0 && s.Send([]notes.Note{{Encoded: encoded}}) == nil && s.Flush() == nil
}

func (s *session) Buffered() bool { return false }

func (s *session) Flush() error {
	runtime.Gosched() // Let the store settle tickets during the flush: send must not miss them.
	s.got = append(s.got, s.buffered...)
	s.buffered = nil
	return nil
}

func (s *session) Reset() {}

func (s *session) StopReceiving() {
	s.once.Do(func() {
		close(s.stop)
		s.late.mu.Lock()
		defer s.late.mu.Unlock()
		s.late.immediate = true
		s.late.settle()
	})
}

// Replies come in the order of the notes, whatever the order in which tickets are settled. An append error
// ends the chat after the replies to all earlier notes.
func TestServeRepliesInOrderOfNotes(t *testing.T) {
	t.Parallel()
	for seed := range 300 {
		count := seed % 50
		for _, fail := range []int{count, count / 2, 0} {
			late := &late{Store: memorystore.New(), failFrom: uint64(fail)}
			session := &session{late: late, stop: make(chan struct{}), open: fail < count}
			for i := range count {
				session.sent = append(session.sent, &routeguide.RouteNote{
					Location: &routeguide.Point{Longitude: int32(i)},
					Message:  fmt.Sprint(i),
				})
			}
			_, err := chat.NewServer(chat.Options{Store: late}).Serve(t.Context(), session, nil)
			late.settling.Wait()
			if fail < count && !errors.Is(err, errStore) || fail == count && err != nil {
				t.Fatalf("%d notes of which %d are kept: got %v", count, fail, err)
			}
			if len(session.got) != min(fail, count) {
				t.Fatalf("%d notes of which %d are kept: got %d replies", count, fail, len(session.got))
			}
			for i, text := range session.got {
				if text != fmt.Sprint(i) {
					t.Fatalf("reply %d is to note %s", i, text)
				}
			}
		}
	}
}

// A client that is told "not kept" sends the note and all later ones again. If a later one was kept, the
// error must be notes.ErrUnknown instead.
func TestServeErrUnknownIfLaterNoteIsKept(t *testing.T) {
	t.Parallel()
	for lost := range uint64(5) {
		late := &late{Store: memorystore.New(), failFrom: lost, failOnly: true}
		session := &session{late: late, stop: make(chan struct{})}
		for i := range 5 {
			session.sent = append(session.sent, &routeguide.RouteNote{Location: &routeguide.Point{Longitude: int32(i)}})
		}
		_, err := chat.NewServer(chat.Options{Store: late}).Serve(t.Context(), session, nil)
		late.settling.Wait()
		if !errors.Is(err, errStore) || errors.Is(err, notes.ErrUnknown) != (lost < 4) {
			t.Errorf("the note %d of 0 to 4 is lost: got %v", lost, err)
		}
	}
}

func TestOptionsHistoryKeepsNewest(t *testing.T) {
	t.Parallel()
	late := &late{Store: memorystore.New(), failFrom: 100}
	session := &session{late: late, stop: make(chan struct{})}
	for i := range 5 {
		session.sent = append(session.sent, &routeguide.RouteNote{Location: &routeguide.Point{}, Message: fmt.Sprint(i)})
	}
	if _, err := chat.NewServer(chat.Options{Store: late, History: 2}).Serve(t.Context(), session, nil); err != nil {
		t.Fatal(err)
	}
	late.settling.Wait()
	if got, want := fmt.Sprint(session.got), "[0 0 1 1 2 2 3 3 4]"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestServerOldestPending(t *testing.T) {
	t.Parallel()
	late := &late{Store: memorystore.New(), failFrom: 100}
	session := &session{late: late, stop: make(chan struct{}), open: true, sent: []*routeguide.RouteNote{
		{Location: &routeguide.Point{}}, {Location: &routeguide.Point{}},
	}}
	server := chat.NewServer(chat.Options{Store: late})
	before := notes.Now()
	if got := server.OldestPending(before); got != before {
		t.Errorf("got %d without a chat, want %d", got, before)
	}
	late.mu.Lock() // Block all tickets.
	ended := make(chan error)
	go func() {
		_, err := server.Serve(t.Context(), session, nil)
		ended <- err
	}()
	for server.OldestPending(before+1<<60) == before+1<<60 {
	}
	now := notes.Now()
	if got := server.OldestPending(now); got < before || got > now {
		t.Errorf("got %d, want a time from %d to %d", got, before, now)
	}
	late.mu.Unlock()
	session.StopReceiving()
	<-ended
	late.settling.Wait()
	if got := server.OldestPending(now); got != now {
		t.Errorf("got %d after the chat, want %d", got, now)
	}
}

// eager is the stream of a client whose replies can be sent without blocking now and then.
type eager struct {
	session

	random *rand.Rand
	tried  int // notes sent by TrySend
}

func (e *eager) Receive() ([]byte, error) {
	if e.next == len(e.sent) {
		return nil, io.EOF
	}
	e.next++
	return proto.Marshal(e.sent[e.next-1])
}

func (e *eager) Buffered() bool { return e.random.IntN(3) == 0 }

func (e *eager) TrySend(encoded []byte) bool {
	if e.random.IntN(3) == 0 {
		return false
	}
	if len(e.buffered) > 0 {
		panic("TrySend after Send without Flush")
	}
	e.tried++
	_ = e.Send([]notes.Note{{Encoded: encoded}})
	_ = e.Flush()
	return true
}

// A store that settles notes within Append lets the receiver reply by itself. Replies stay in order, whichever goroutine sends them.
func TestServeRepliesWithinAppend(t *testing.T) {
	t.Parallel()
	tried, sent := 0, 0
	for seed := range uint64(300) {
		random := rand.New(rand.NewPCG(seed, 0))
		client := &eager{random: rand.New(rand.NewPCG(seed, 1))}
		var want []string
		logs := make(map[int32][]string)
		for i := range random.IntN(60) {
			at := random.Int32N(40) // Most notes are alone.
			logs[at] = append(logs[at], fmt.Sprint(i))
			want = append(want, logs[at]...)
			client.sent = append(client.sent, &routeguide.RouteNote{Location: &routeguide.Point{Longitude: at}, Message: fmt.Sprint(i)})
		}
		server := chat.NewServer(chat.Options{Store: memorystore.New()})
		traffic, err := server.Serve(t.Context(), client, nil)
		if err != nil || !slices.Equal(client.got, want) {
			t.Fatalf("seed %d: got %v, %v, want %v", seed, client.got, err, want)
		}
		counts := server.Counts()
		if traffic.Out != int64(len(want)) || counts.Sent != int64(len(want)) || counts.Pending != 0 {
			t.Fatalf("seed %d: counted %+v and %+v for %d notes sent", seed, traffic, counts, len(want))
		}
		tried, sent = tried+client.tried, sent+len(want)
	}
	if tried == 0 || tried == sent {
		t.Errorf("%d of %d notes were sent by TrySend, want some", tried, sent)
	}
}
