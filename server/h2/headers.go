package h2

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"golang.org/x/net/http/httpguts"
	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// headerTableSize is the HPACK dynamic table of requests in bytes: the initial SETTINGS_HEADER_TABLE_SIZE.
	headerTableSize = 4096
	// maxContinuations is how many CONTINUATION frames a header block may have: each can carry 16 KiB.
	maxContinuations = 16
	// fieldOverhead is what each field counts beyond its name and value, in bytes
	// (https://www.rfc-editor.org/rfc/rfc9113#section-6.5.2).
	fieldOverhead = 32
)

// headerBlock is a header block that is arriving: a request's headers, or its trailers.
type headerBlock struct {
	stream        uint32 // 0 is none
	end           bool   // END_STREAM
	ignored       bool   // the stream was reset, or may not be opened: only HPACK's state matters
	trailers      bool
	selfDependent bool
	continuations int
	bytes         int // of the block as sent

	size                            int    // of the header list: names, values and fieldOverhead, in bytes
	malformed                       string // first rule that the block breaks; empty if there is none
	regular                         bool   // a field that is not a pseudo-header came
	method, scheme, authority, path string
	header                          http.Header
	cookie                          []string
}

// handleHeaders begins a header block (section 6.2).
func (c *conn) handleHeaders(header frameHeader, payload []byte) error {
	if header.stream == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	pad := 0
	if header.flags.Has(http2.FlagHeadersPadded) {
		if len(payload) == 0 {
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		pad, payload = int(payload[0]), payload[1:]
	}
	selfDependent := false
	if header.flags.Has(http2.FlagHeadersPriority) {
		if len(payload) < 5 {
			return http2.ConnectionError(http2.ErrCodeFrameSize)
		}
		selfDependent = dependsOn(payload) == header.stream
		payload = payload[5:]
	}
	if pad > len(payload) {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	c.block = headerBlock{stream: header.stream, end: header.flags.Has(http2.FlagHeadersEndStream), selfDependent: selfDependent}
	if err := c.checkOpen(); err != nil {
		return err
	}
	return c.decode(payload[:len(payload)-pad], header.flags.Has(http2.FlagHeadersEndHeaders))
}

// checkOpen says what the header block is for. The caller holds c.mu.
func (c *conn) checkOpen() error {
	block := &c.block
	s := c.streams[block.stream]
	switch {
	case s != nil && s.inErr != nil && !s.finished:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case s != nil:
		block.trailers = true
	case block.stream <= c.lastStream && c.reset.has(block.stream):
		block.ignored = true
	case block.stream <= c.lastStream:
		return http2.ConnectionError(http2.ErrCodeStreamClosed)
	case block.stream%2 == 0:
		return http2.ConnectionError(http2.ErrCodeProtocol)
	case c.output.namedLast || c.ending:
		// GOAWAY has told the client that this stream is not served.
		block.ignored = true
		c.lastStream = block.stream
		c.reset.add(block.stream)
	default:
		c.lastStream, c.lastServed = block.stream, block.stream
	}
	return nil
}

// handleContinuation goes on with a header block (section 6.10).
func (c *conn) handleContinuation(header frameHeader, payload []byte) error {
	if c.block.stream == 0 {
		return http2.ConnectionError(http2.ErrCodeProtocol)
	}
	if c.block.continuations++; c.block.continuations > maxContinuations {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return c.decode(payload, header.flags.Has(http2.FlagContinuationEndHeaders))
}

// decode decodes a fragment of a header block.
func (c *conn) decode(fragment []byte, last bool) error {
	if c.block.bytes += len(fragment); c.block.bytes > 2*c.server.MaxHeaderBytes {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	if _, err := c.decoder.Write(fragment); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	if !last {
		c.arrives()
		return nil
	}
	if err := c.decoder.Close(); err != nil {
		return http2.ConnectionError(http2.ErrCodeCompression)
	}
	block := c.block
	c.block = headerBlock{}
	c.arrived()
	switch {
	case block.ignored:
		return nil
	case block.selfDependent:
		return streamError(block.stream, http2.ErrCodeProtocol)
	case block.trailers:
		return c.endWithTrailers(&block)
	default:
		return c.request(&block)
	}
}

// decodeField checks and keeps a field of the header block.
func (c *conn) decodeField(field hpack.HeaderField) {
	block := &c.block
	if block.size += len(field.Name) + len(field.Value) + fieldOverhead; block.size > c.server.MaxHeaderBytes || block.ignored || block.malformed != "" {
		return
	}
	switch {
	case !httpguts.ValidHeaderFieldValue(field.Value) || field.Value != strings.Trim(field.Value, " \t"):
		block.malformed = "value of " + field.Name
	case strings.HasPrefix(field.Name, ":"):
		block.pseudo(field)
	case !isFieldName(field.Name):
		block.malformed = "name of a field"
	default:
		block.add(field)
	}
}

// pseudo keeps a pseudo-header (section 8.3.1).
func (b *headerBlock) pseudo(field hpack.HeaderField) {
	var target *string
	switch field.Name {
	case ":method":
		target = &b.method
	case ":scheme":
		target = &b.scheme
	case ":authority":
		target = &b.authority
	case ":path":
		target = &b.path
	}
	if target == nil || *target != "" || field.Value == "" || b.regular || b.trailers {
		b.malformed = "pseudo-header " + field.Name
		return
	}
	*target = field.Value
}

// add keeps a regular field (section 8.2).
func (b *headerBlock) add(field hpack.HeaderField) {
	b.regular = true
	switch field.Name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		b.malformed = "connection-specific field " + field.Name
		return
	case "te":
		if field.Value != "trailers" {
			b.malformed = "te other than trailers"
			return
		}
	case "cookie":
		b.cookie = append(b.cookie, field.Value)
		return
	}
	if b.header == nil {
		b.header = make(http.Header)
	}
	key := canonicalKey(field.Name)
	b.header[key] = append(b.header[key], field.Value)
}

// isFieldName reports whether a name is a token without upper case (section 8.2.1).
func isFieldName(name string) bool {
	for i := range len(name) {
		if c := name[i]; 'A' <= c && c <= 'Z' || !httpguts.IsTokenRune(rune(c)) {
			return false
		}
	}
	return name != ""
}

// canonicalKeys has the fields of RPC that net/http does not know, and would allocate for each request.
var canonicalKeys = map[string]string{
	"te": "Te", "grpc-timeout": "Grpc-Timeout", "grpc-encoding": "Grpc-Encoding", "grpc-accept-encoding": "Grpc-Accept-Encoding",
	"connect-protocol-version": "Connect-Protocol-Version", "connect-timeout-ms": "Connect-Timeout-Ms",
}

func canonicalKey(name string) string {
	if key, ok := canonicalKeys[name]; ok {
		return key
	}
	return http.CanonicalHeaderKey(name)
}

// check returns the rule that a request breaks, or an empty string (section 8.3.1).
func (b *headerBlock) check() string {
	switch {
	case b.malformed != "":
		return b.malformed
	case b.method == "" || !isToken(b.method):
		return "pseudo-header :method"
	case b.method == http.MethodConnect:
		if b.scheme != "" || b.path != "" || b.authority == "" {
			return "pseudo-headers of CONNECT"
		}
	case b.scheme != "http" && b.scheme != "https":
		return "pseudo-header :scheme"
	case !strings.HasPrefix(b.path, "/") && (b.path != "*" || b.method != http.MethodOptions):
		return "pseudo-header :path"
	}
	hosts := b.header["Host"]
	if len(hosts) > 1 || len(hosts) == 1 && b.authority != "" && !strings.EqualFold(hosts[0], b.authority) {
		return "host differs from :authority"
	}
	if len(hosts) == 1 && b.authority == "" {
		b.authority = hosts[0]
	}
	if !httpguts.ValidHostHeader(b.authority) || strings.Contains(b.authority, "@") {
		return "pseudo-header :authority"
	}
	return ""
}

func isToken(s string) bool {
	return s != "" && strings.IndexFunc(s, func(r rune) bool { return !httpguts.IsTokenRune(r) }) < 0
}

// request opens a stream for a complete header block. The caller holds c.mu.
func (c *conn) request(block *headerBlock) error {
	if broken := block.check(); broken != "" {
		c.server.Logger.Debug("malformed request", "client", c.remoteAddr, "rule", broken)
		return streamError(block.stream, http2.ErrCodeProtocol)
	}
	length, ok := block.contentLength()
	if !ok || block.end && length > 0 {
		return streamError(block.stream, http2.ErrCodeProtocol)
	}
	// A handler whose stream was reset is still running: such ones count, up to as many again.
	if len(c.streams) >= c.server.MaxStreams || c.handlers >= 2*c.server.MaxStreams {
		return streamError(block.stream, http2.ErrCodeRefusedStream)
	}
	s, err := c.newStream(block, length)
	if err != nil {
		return streamError(block.stream, http2.ErrCodeProtocol)
	}
	if block.end {
		s.inErr = io.EOF
	}
	c.open(s)
	return nil
}

// contentLength returns the declared length of the body, or -1.
func (b *headerBlock) contentLength() (length int64, ok bool) {
	values := b.header["Content-Length"]
	if len(values) == 0 {
		return -1, true
	}
	for _, value := range values {
		if value != values[0] {
			return 0, false
		}
	}
	parsed, err := strconv.ParseUint(values[0], 10, 63)
	if err != nil {
		return 0, false
	}
	return int64(parsed), true
}

// newStream returns a stream with its request.
func (c *conn) newStream(block *headerBlock, length int64) (*stream, error) {
	target := &url.URL{Host: block.authority}
	if block.method != http.MethodConnect {
		var err error
		if target, err = url.ParseRequestURI(block.path); err != nil {
			return nil, err
		}
	}
	s := &stream{conn: c, id: block.stream, length: length, window: c.server.StreamWindow, sendWindow: c.initialWindow}
	s.readable.L, s.writable.L = &c.mu, &c.mu
	if block.header == nil {
		block.header = make(http.Header)
	}
	delete(block.header, "Host")
	if len(block.cookie) > 0 {
		block.header["Cookie"] = []string{strings.Join(block.cookie, "; ")} // Section 8.2.3.
	}
	if httpguts.HeaderValuesContainsToken(block.header["Expect"], "100-continue") {
		delete(block.header, "Expect")
		s.expects = !block.end
	}
	ctx, cancel := context.WithCancelCause(c.ctx)
	s.cancel = cancel
	request := &http.Request{
		Method: block.method, URL: target, Proto: "HTTP/2.0", ProtoMajor: 2, Header: block.header, Host: block.authority,
		RemoteAddr: c.remoteAddr, TLS: c.tls, Trailer: declaredTrailers(block.header), ContentLength: length, Body: (*requestBody)(s),
	}
	if request.RequestURI = block.path; block.method == http.MethodConnect {
		request.RequestURI = block.authority
	}
	if block.end {
		request.Body = http.NoBody
		request.ContentLength = 0
	}
	s.request = request.WithContext(ctx)
	s.tooLarge = block.size > c.server.MaxHeaderBytes
	return s, nil
}

// declaredTrailers returns the trailers that the field Trailer names, without values, and removes it as net/http does.
func declaredTrailers(header http.Header) http.Header {
	var trailers http.Header
	for _, names := range header["Trailer"] {
		for name := range strings.SplitSeq(names, ",") {
			key := http.CanonicalHeaderKey(strings.TrimSpace(name))
			switch key {
			case "", "Transfer-Encoding", "Trailer", "Content-Length":
				continue
			}
			if trailers == nil {
				trailers = make(http.Header)
			}
			trailers[key] = nil
		}
	}
	delete(header, "Trailer")
	return trailers
}

// endWithTrailers ends the body of a request with its trailers (section 8.1). The caller holds c.mu.
func (c *conn) endWithTrailers(block *headerBlock) error {
	s := c.streams[block.stream]
	if s == nil {
		return nil // It was reset while the block arrived.
	}
	if !block.end || block.malformed != "" || block.size > c.server.MaxHeaderBytes {
		return streamError(block.stream, http2.ErrCodeProtocol)
	}
	for key, values := range block.header {
		if _, declared := s.request.Trailer[key]; declared { // The handler writes to it only after EOF.
			if s.trailer == nil {
				s.trailer = make(http.Header)
			}
			s.trailer[key] = values
		}
	}
	return c.endBody(s)
}

// headerEncoder encodes the header blocks of responses. The zero value is ready to use. The connection's lock guards it.
type headerEncoder struct {
	block   bytes.Buffer
	encoder *hpack.Encoder
}

// limit sets the client's SETTINGS_HEADER_TABLE_SIZE.
func (e *headerEncoder) limit(size uint32) {
	e.init()
	e.encoder.SetMaxDynamicTableSize(min(size, headerTableSize))
}

func (e *headerEncoder) init() {
	if e.encoder == nil {
		e.encoder = hpack.NewEncoder(&e.block)
	}
}

// begin begins a block.
func (e *headerEncoder) begin() {
	e.init()
	e.block.Reset()
}

func (e *headerEncoder) field(name, value string) {
	_ = e.encoder.WriteField(hpack.HeaderField{Name: name, Value: value}) // Writes to a bytes.Buffer do not fail.
}

// fields encodes valid fields of a header. Others are left out, as net/http does.
func (e *headerEncoder) fields(key string, values []string) {
	name := lowerKey(key)
	if name == "" {
		return
	}
	for _, value := range values {
		if httpguts.ValidHeaderFieldValue(value) {
			e.field(name, value)
		}
	}
}

// lowerKeys has the lower case of keys that responses of RPC have.
var lowerKeys = map[string]string{
	"Content-Type": "content-type", "Content-Length": "content-length", "Date": "date", "Vary": "vary",
	"Grpc-Status": "grpc-status", "Grpc-Message": "grpc-message", "Grpc-Encoding": "grpc-encoding", "Grpc-Accept-Encoding": "grpc-accept-encoding",
	"Connect-Accept-Encoding": "connect-accept-encoding", "Connect-Content-Encoding": "connect-content-encoding", "Accept-Encoding": "accept-encoding",
}

// lowerKey returns the name of a field as HTTP/2 has it, or an empty string if it is not allowed there.
func lowerKey(key string) string {
	if name, ok := lowerKeys[key]; ok {
		return name
	}
	if !isToken(key) {
		return ""
	}
	switch name := strings.ToLower(key); name {
	case "connection", "proxy-connection", "keep-alive", "transfer-encoding", "upgrade":
		return ""
	default:
		return name
	}
}
