package browser

import (
	"bytes"
	"encoding/binary"
	"net/url"
	"strings"
	"testing"

	routeguidev1 "example.com/routeguide/gen/routeguide/v1"
	"github.com/chromedp/cdproto/network"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
)

// The paths of the RPCs that the page calls.
const (
	leaveNote   = "/routeguide.v1.NoteService/LeaveNote"
	followNotes = "/routeguide.v1.NoteService/FollowNotes"
)

// A request is one that a page made.
type request struct {
	id       network.RequestID
	url      *url.URL
	body     []byte
	json     bool   // the encoding of an RPC's messages
	protocol string // of the connection, such as h2; empty until there is a response
	status   int64
}

func (p *tab) observeRequest(event *network.EventRequestWillBeSent) {
	parsed, err := url.Parse(event.Request.URL)
	if err != nil {
		p.problemf("request to %q: %v", event.Request.URL, err)
		return
	}
	var body bytes.Buffer
	for _, entry := range event.Request.PostDataEntries {
		body.Write(entry.Bytes)
	}
	kind, _ := event.Request.Headers["Content-Type"].(string)
	p.mu.Lock()
	p.requests = append(p.requests, &request{id: event.RequestID, url: parsed, body: body.Bytes(), json: strings.Contains(kind, "json")})
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if parsed.Scheme != "data" && parsed.Scheme+"://"+parsed.Host != p.origin {
		p.problemf("request to another server: %s", event.Request.URL)
	}
}

func (p *tab) observeResponse(event *network.EventResponseReceived) {
	p.mu.Lock()
	for _, request := range p.requests {
		if request.id == event.RequestID {
			request.protocol, request.status = event.Response.Protocol, event.Response.Status
		}
	}
	close(p.changed)
	p.changed = make(chan struct{})
	p.mu.Unlock()
	if event.Response.Status >= 400 {
		p.problemf("response: %s: status %d", event.Response.URL, event.Response.Status)
	}
}

func (p *tab) requestURL(id network.RequestID) string {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, request := range p.requests {
		if request.id == id {
			return request.url.String()
		}
	}
	return string(id)
}

// requested returns the requests for a path, in their order.
func (p *tab) requested(path string) []*request {
	p.mu.Lock()
	defer p.mu.Unlock()
	var found []*request
	for _, request := range p.requests {
		if request.url.Path == path {
			found = append(found, request)
		}
	}
	return found
}

// followed returns the requests of FollowNotes that the page has made for rectangles.
func (p *tab) followed() []*routeguidev1.FollowNotesRequest {
	p.t.Helper()
	var requests []*routeguidev1.FollowNotesRequest
	for _, made := range p.requested(followNotes) {
		var request routeguidev1.FollowNotesRequest
		made.message(p.t, true, &request)
		if request.GetRectangle() != nil {
			requests = append(requests, &request)
		}
	}
	return requests
}

// message decodes the message of an RPC's request.
func (r *request) message(t *testing.T, streaming bool, message proto.Message) {
	t.Helper()
	body := r.body
	if streaming {
		// A message of a stream begins with a byte of flags and its length.
		if len(body) < 5 || int(binary.BigEndian.Uint32(body[1:])) != len(body)-5 {
			t.Fatalf("%s has the body %q", r.url, body)
		}
		body = body[5:]
	}
	unmarshal := proto.Unmarshal
	if r.json {
		unmarshal = protojson.Unmarshal
	}
	if err := unmarshal(body, message); err != nil {
		t.Fatal(err)
	}
}
