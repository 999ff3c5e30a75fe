package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync"
	"time"

	"example.com/routeguide/internal/process"
	"google.golang.org/grpc"
	pb "google.golang.org/grpc/examples/route_guide/routeguide"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// liveService is how notes are left at a server and followed, over gRPC. Messages are put together and taken apart here, by their field
// numbers: the code generated from our contract must not be in one program with grpc-go's.
type liveService struct {
	follow        string                                         // full name of the server-streaming method
	followRequest func(filter []byte) []byte                     // filter is an encoded FollowNotesRequest
	following     protowire.Number                               // field of the first response after which every note arrives
	text          []protowire.Number                             // field numbers on the way from a response to the texts in it
	leave         string                                         // full name of the unary method
	leaveRequest  func(note []byte) []byte                       // note is an encoded RouteNote
	leaveError    protowire.Number                               // field of the response that is an error; 0 is none
	leaveAddress  func(*process.Process, string) (string, error) // where to leave notes at a server that is followed at an address
}

// noteService is our FollowNotes and LeaveNote. A LeaveNoteRequest has the location and the text in the fields of a RouteNote.
var noteService = &liveService{
	follow:        "/routeguide.v1.NoteService/FollowNotes",
	followRequest: func(filter []byte) []byte { return filter },
	following:     3,                        // current
	text:          []protowire.Number{1, 2}, // notes, Note.text
	leave:         "/routeguide.v1.NoteService/LeaveNote",
	leaveRequest:  func(note []byte) []byte { return note },
	leaveAddress:  func(_ *process.Process, address string) (string, error) { return address, nil },
}

// atLocation and inRectangle return an encoded FollowNotesRequest, of notes that are left from then on.
func atLocation(location *pb.Point) ([]byte, error) { return followNotesRequest(1, location) }

func inRectangle(rectangle *pb.Rectangle) ([]byte, error) { return followNotesRequest(2, rectangle) }

func followNotesRequest(field protowire.Number, filter proto.Message) ([]byte, error) {
	encoded, err := proto.Marshal(filter)
	request := protowire.AppendBytes(protowire.AppendTag(nil, field, protowire.BytesType), encoded)
	return protowire.AppendVarint(protowire.AppendTag(request, 3, protowire.VarintType), 0), err // newest
}

// encoded is a message that gRPC sends and receives as it is, by rawCodec.
type encoded []byte

type rawCodec struct{}

func (rawCodec) Marshal(message any) ([]byte, error) { return *message.(*encoded), nil }

func (rawCodec) Unmarshal(data []byte, message any) error {
	*message.(*encoded) = data
	return nil
}

func (rawCodec) Name() string { return "proto" }

// visit calls found with each value of length-delimited fields that path leads to. The last of path may be a field of any type,
// for which found gets the encoded value.
func visit(message []byte, path []protowire.Number, found func(value []byte)) error {
	for len(message) > 0 {
		number, wireType, size := protowire.ConsumeTag(message)
		if size < 0 {
			return protowire.ParseError(size)
		}
		message = message[size:]
		if size = protowire.ConsumeFieldValue(number, wireType, message); size < 0 {
			return protowire.ParseError(size)
		}
		value := message[:size]
		message = message[size:]
		if number != path[0] {
			continue
		}
		if wireType == protowire.BytesType {
			value, _ = protowire.ConsumeBytes(value)
		}
		if len(path) == 1 {
			found(value)
		} else if err := visit(value, path[1:], found); err != nil {
			return err
		}
	}
	return nil
}

// A text begins with the time at which the note was due, in nanoseconds since epoch, with stampDigits digits.
const stampDigits = 15

var epoch = time.Now()

func stamp(due time.Time, text string) string {
	stamp := fmt.Sprintf("%0*d ", stampDigits, due.Sub(epoch).Nanoseconds())
	return stamp + text[min(len(stamp), len(text)):]
}

// noteFollower is a stream of a grpc-go client.
type noteFollower struct {
	service   *liveService
	stream    grpc.ClientStream
	latencies []time.Duration // of the received notes, from when they were due
}

// follow opens a stream, and returns once it gets every note that is left from then on.
func follow(ctx context.Context, connection *grpc.ClientConn, service *liveService, filter []byte) (*noteFollower, error) {
	stream, err := connection.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, service.follow, grpc.ForceCodec(rawCodec{}))
	if err != nil {
		return nil, err
	}
	request := encoded(service.followRequest(filter))
	if err := errors.Join(stream.SendMsg(&request), stream.CloseSend()); err != nil {
		return nil, err
	}
	follower := &noteFollower{service: service, stream: stream}
	for following := false; !following; {
		var response encoded
		if err := stream.RecvMsg(&response); err != nil {
			return nil, err
		}
		if err := visit(response, []protowire.Number{service.following}, func([]byte) { following = true }); err != nil {
			return nil, err
		}
	}
	return follower, nil
}

// followAll opens a stream for each filter, spread over the connections.
func followAll(ctx context.Context, connections connections, service *liveService, filters [][]byte) ([]*noteFollower, error) {
	followers := make([]*noteFollower, len(filters))
	errs := make([]error, len(connections))
	var opening sync.WaitGroup
	for first, connection := range connections {
		opening.Go(func() {
			for i := first; i < len(filters) && errs[first] == nil; i += len(connections) {
				followers[i], errs[first] = follow(ctx, connection, service, filters[i])
			}
		})
	}
	opening.Wait()
	return followers, firstError(errs)
}

// receive receives want more notes. What comes beyond them with the last one is an error.
func (f *noteFollower) receive(want int) error {
	var broken error
	for want += len(f.latencies); len(f.latencies) < want && broken == nil; {
		var response encoded
		if err := f.stream.RecvMsg(&response); err != nil {
			return fmt.Errorf("after %d of %d notes: %w", len(f.latencies), want, err)
		}
		err := visit(response, f.service.text, func(text []byte) {
			due, err := strconv.ParseInt(string(text[:min(stampDigits, len(text))]), 10, 64)
			broken = errors.Join(broken, err)
			f.latencies = append(f.latencies, time.Since(epoch)-time.Duration(due))
		})
		broken = errors.Join(broken, err)
	}
	if len(f.latencies) > want {
		return errors.Join(broken, fmt.Errorf("%d notes instead of %d", len(f.latencies), want))
	}
	return broken
}

// receiveAll lets each follower receive its number of notes, while leave leaves them.
func receiveAll(followers []*noteFollower, want func(follower int) int, leave func() error) error {
	errs := make([]error, len(followers))
	var receiving sync.WaitGroup
	for i, follower := range followers {
		receiving.Go(func() { errs[i] = follower.receive(want(i)) })
	}
	err := leave()
	receiving.Wait()
	return errors.Join(err, firstError(errs))
}

// firstError returns one error of many: thousands of followers fail for one reason.
func firstError(errs []error) error {
	for i, err := range errs {
		if err != nil {
			return fmt.Errorf("%d of %d: %w", i+1, len(errs), err)
		}
	}
	return nil
}

// leaver leaves notes by a unary call for each.
type leaver struct {
	service    *liveService
	connection *grpc.ClientConn
}

// leave leaves notes in an open loop: each is due at a fixed time, whether the ones before were answered or not.
func (l *leaver) leave(ctx context.Context, notes []*pb.RouteNote, rate float64) error {
	errs := make([]error, len(notes))
	var leaving sync.WaitGroup
	start := time.Now()
	for i, note := range notes {
		due := start.Add(time.Duration(float64(i) / rate * float64(time.Second)))
		if err := sleepUntil(ctx, due); err != nil {
			return err
		}
		leaving.Go(func() { errs[i] = l.leaveOne(ctx, note, due) })
	}
	leaving.Wait()
	return errors.Join(errs...)
}

func (l *leaver) leaveOne(ctx context.Context, note *pb.RouteNote, due time.Time) error {
	bytes, err := proto.Marshal(&pb.RouteNote{Location: note.GetLocation(), Message: stamp(due, note.GetMessage())})
	if err != nil {
		return err
	}
	request, response := encoded(l.service.leaveRequest(bytes)), encoded(nil)
	if err := l.connection.Invoke(ctx, l.service.leave, &request, &response, grpc.ForceCodec(rawCodec{})); err != nil {
		return err
	}
	if l.service.leaveError == 0 {
		return nil
	}
	var refused error
	err = visit(response, []protowire.Number{l.service.leaveError}, func(value []byte) { refused = fmt.Errorf("refused: %q", value) })
	return errors.Join(err, refused)
}

func sleepUntil(ctx context.Context, due time.Time) error {
	timer := time.NewTimer(time.Until(due))
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
