package main

import (
	"context"
	"errors"
	"io"
	"net/http"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	conformancev1 "example.com/routeguide/server/internal/conformance/gen/connectrpc/conformance/v1"
	"example.com/routeguide/server/internal/conformance/gen/connectrpc/conformance/v1/conformancev1connect"
)

// conformance implements the ConformanceService: a request defines the response, which also tells what the server saw
// of the request. The suite's service.proto states the rules.
type conformance struct {
	conformancev1connect.UnimplementedConformanceServiceHandler // Unimplemented stays so.
}

func (conformance) Unary(ctx context.Context, request *conformancev1.UnaryRequest) (*conformancev1.UnaryResponse, error) {
	payload, err := single(ctx, request.GetResponseDefinition(), request)
	return &conformancev1.UnaryResponse{Payload: payload}, err
}

func (conformance) IdempotentUnary(ctx context.Context, request *conformancev1.IdempotentUnaryRequest) (*conformancev1.IdempotentUnaryResponse, error) {
	payload, err := single(ctx, request.GetResponseDefinition(), request)
	return &conformancev1.IdempotentUnaryResponse{Payload: payload}, err
}

func (conformance) ClientStream(ctx context.Context, stream *connect.ClientStream[conformancev1.ClientStreamRequest]) (*conformancev1.ClientStreamResponse, error) {
	var definition *conformancev1.UnaryResponseDefinition
	var requests []proto.Message
	for stream.Receive() {
		if len(requests) == 0 {
			definition = stream.Msg().GetResponseDefinition()
		}
		requests = append(requests, stream.Msg())
	}
	if err := stream.Err(); err != nil {
		return nil, err
	}
	payload, err := single(ctx, definition, requests...)
	return &conformancev1.ClientStreamResponse{Payload: payload}, err
}

func (conformance) ServerStream(ctx context.Context, request *conformancev1.ServerStreamRequest, stream *connect.ServerStream[conformancev1.ServerStreamResponse]) error {
	return newResponses(ctx, request.GetResponseDefinition(), stream.Conn(), func(payload *conformancev1.ConformancePayload) any {
		return &conformancev1.ServerStreamResponse{Payload: payload}
	}).end(request)
}

func (conformance) BidiStream(ctx context.Context, stream *connect.BidiStream[conformancev1.BidiStreamRequest, conformancev1.BidiStreamResponse]) error {
	var responses *responses
	var unanswered []proto.Message
	fullDuplex := false
	for {
		request, err := stream.Receive()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if responses == nil {
			fullDuplex = request.GetFullDuplex()
			responses = newResponses(ctx, request.GetResponseDefinition(), stream.Conn(), func(payload *conformancev1.ConformancePayload) any {
				return &conformancev1.BidiStreamResponse{Payload: payload}
			})
		}
		unanswered = append(unanswered, request)
		if !fullDuplex {
			continue
		}
		if !responses.more() {
			break
		}
		if err := responses.send(unanswered...); err != nil {
			return err
		}
		unanswered = nil
	}
	if responses == nil {
		return nil
	}
	return responses.end(unanswered...)
}

// single returns the payload of a single response, or the error that the definition has instead.
func single(ctx context.Context, definition *conformancev1.UnaryResponseDefinition, requests ...proto.Message) (*conformancev1.ConformancePayload, error) {
	info, err := requestInfo(ctx, requests)
	if err != nil {
		return nil, err
	}
	setMetadata(ctx, definition.GetResponseHeaders(), definition.GetResponseTrailers())
	delay(definition)
	if definition.GetError() != nil {
		return nil, newError(definition.GetError(), info)
	}
	return &conformancev1.ConformancePayload{Data: definition.GetResponseData(), RequestInfo: info}, nil
}

// responses are the responses of a stream, as the first request defines them.
type responses struct {
	ctx        context.Context //nolint:containedctx // It lives as long as its call.
	definition *conformancev1.StreamResponseDefinition
	conn       connect.StreamingHandlerConn
	wrap       func(*conformancev1.ConformancePayload) any // in the response message of the method
	sent       int                                         // responses
}

func newResponses(ctx context.Context, definition *conformancev1.StreamResponseDefinition, conn connect.StreamingHandlerConn, wrap func(*conformancev1.ConformancePayload) any) *responses {
	setMetadata(ctx, definition.GetResponseHeaders(), definition.GetResponseTrailers())
	return &responses{ctx: ctx, definition: definition, conn: conn, wrap: wrap}
}

// more returns whether there are responses to send.
func (r *responses) more() bool {
	return r.sent < len(r.definition.GetResponseData())
}

// send sends the next response, to requests that have not been answered. The first response has all that the server saw
// of the request, and later ones only the messages.
func (r *responses) send(requests ...proto.Message) error {
	payload := &conformancev1.ConformancePayload{Data: r.definition.GetResponseData()[r.sent]}
	var err error
	switch {
	case r.sent == 0:
		// The client may wait for the headers, which come before the delay.
		if err = r.conn.Send(nil); err == nil {
			payload.RequestInfo, err = requestInfo(r.ctx, requests)
		}
	case len(requests) > 0:
		payload.RequestInfo = &conformancev1.ConformancePayload_RequestInfo{}
		payload.RequestInfo.Requests, err = packed(requests)
	}
	if err != nil {
		return err
	}
	delay(r.definition)
	r.sent++
	return r.conn.Send(r.wrap(payload))
}

// end sends the responses that are left, and returns the error that ends the call. The first of them, or the error of a
// call without any, has the requests.
func (r *responses) end(requests ...proto.Message) error {
	for ; r.more(); requests = nil {
		if err := r.send(requests...); err != nil {
			return err
		}
	}
	switch {
	case r.definition.GetError() == nil:
		return nil
	case r.sent > 0:
		return newError(r.definition.GetError(), nil)
	}
	info, err := requestInfo(r.ctx, requests)
	if err != nil {
		return err
	}
	return newError(r.definition.GetError(), info)
}

// requestInfo returns what the server has seen of the request of a call.
func requestInfo(ctx context.Context, requests []proto.Message) (*conformancev1.ConformancePayload_RequestInfo, error) {
	call, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return nil, errors.New("no call in the context")
	}
	messages, err := packed(requests)
	if err != nil {
		return nil, err
	}
	info := &conformancev1.ConformancePayload_RequestInfo{
		RequestHeaders: headers(call.RequestHeader()),
		Requests:       messages,
	}
	if deadline, ok := ctx.Deadline(); ok {
		info.TimeoutMs = new(time.Until(deadline).Milliseconds())
	}
	if call.HTTPMethod() == http.MethodGet {
		info.ConnectGetInfo = &conformancev1.ConformancePayload_ConnectGetInfo{QueryParams: headers(call.Peer().Query)}
	}
	return info, nil
}

func packed(messages []proto.Message) ([]*anypb.Any, error) {
	packed := make([]*anypb.Any, len(messages))
	for i, message := range messages {
		var err error
		if packed[i], err = anypb.New(message); err != nil {
			return nil, err
		}
	}
	return packed, nil
}

// headers returns the message for an [http.Header], or for parameters of a query.
func headers(of map[string][]string) []*conformancev1.Header {
	headers := make([]*conformancev1.Header, 0, len(of))
	for name, values := range of {
		headers = append(headers, &conformancev1.Header{Name: name, Value: values})
	}
	return headers
}

// setMetadata sets headers and trailers of the response.
func setMetadata(ctx context.Context, headers, trailers []*conformancev1.Header) {
	call, ok := connect.CallInfoForHandlerContext(ctx)
	if !ok {
		return // requestInfo returns the error.
	}
	for _, header := range headers {
		for _, value := range header.GetValue() {
			call.ResponseHeader().Add(header.GetName(), value)
		}
	}
	for _, trailer := range trailers {
		for _, value := range trailer.GetValue() {
			call.ResponseTrailer().Add(trailer.GetName(), value)
		}
	}
}

// delay waits for the delay that a definition asks for. It does not end with the call: at the call's deadline, the suite
// wants to see what its client makes of a response that is late.
func delay(definition interface{ GetResponseDelayMs() uint32 }) {
	time.Sleep(time.Duration(definition.GetResponseDelayMs()) * time.Millisecond)
}

// newError returns an error as the suite defines it. Its last detail is info, unless that is nil.
func newError(definition *conformancev1.Error, info *conformancev1.ConformancePayload_RequestInfo) error {
	coded := connect.NewError(connect.Code(definition.GetCode()), errors.New(definition.GetMessage()))
	details := make([]proto.Message, 0, len(definition.GetDetails())+1)
	for _, detail := range definition.GetDetails() {
		details = append(details, detail)
	}
	if info != nil {
		details = append(details, info)
	}
	for _, message := range details {
		detail, err := connect.NewErrorDetail(message)
		if err != nil {
			return err
		}
		coded.AddDetail(detail)
	}
	return coded
}
