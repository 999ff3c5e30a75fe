package h2

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	// idleReadBytes is the read buffer of a quiet connection, and readBytes that of a busy one, in bytes.
	idleReadBytes = 2 << 10
	readBytes     = 32 << 10
	// maxFrame is the largest payload of a frame that is read or written, in bytes: the initial SETTINGS_MAX_FRAME_SIZE
	// (https://www.rfc-editor.org/rfc/rfc9113#section-4.2).
	maxFrame = 16 << 10
	// connWindow is the flow-control window of a connection in bytes. It is given back as DATA arrives: the windows of streams bound
	// what is unread, and so no stream stops another one.
	connWindow = 1 << 20
	// lingerTimeout is how long a connection is read after its last frame was written, so that the kernel does not reset
	// it before the client has read that frame, and lingerBytes how much is read.
	lingerTimeout = time.Second
	lingerBytes   = 256 << 10
)

var readBuffers = newPool(readBytes)

// conn is an HTTP/2 connection. One goroutine reads it; handlers run in goroutines of their own.
type conn struct {
	server     *Server
	raw        net.Conn        // as accepted
	rwc        net.Conn        // raw, or TLS on it
	transport  net.Conn        // rwc, for reads and writes of HTTP/2
	ctx        context.Context //nolint:containedctx // The parent of the contexts of all requests.
	cancel     context.CancelCauseFunc
	remoteAddr string
	tls        *tls.ConnectionState
	running    sync.WaitGroup // handlers and the writer

	// The reader owns these fields.
	in      buffered
	decoder *hpack.Decoder
	block   headerBlock // header block that has arrived in part
	data    dataFrame   // DATA frame that has arrived in part
	watch   watch       // owned by the watchdog

	// For the watchdog: reads counts reads of the connection. writes and arrivals are odd while a write, or the arrival of a frame or header
	// block, has begun and not ended, and count both.
	reads, writes, arrivals atomic.Uint64
	ready                   atomic.Bool // the client preface has arrived

	reporting sync.Mutex // guards active, and the order of calls of ConnState
	active    bool

	flushQueued func() // the method value of flush, which TryWrite returns

	mu         sync.Mutex // guards the rest
	output     output
	streams    map[uint32]*stream // open or half-closed
	reset      resetStreams
	lastStream uint32 // highest stream that the client has opened
	lastServed uint32 // highest stream that is served: later ones came after the last GOAWAY
	handlers   int    // running handlers
	sendWindow int64  // bytes of DATA that the client takes
	// initialWindow is the client's SETTINGS_INITIAL_WINDOW_SIZE in bytes.
	initialWindow int64
	received      int  // bytes of DATA received since the last WINDOW_UPDATE of the connection
	glitches      int  // see spend
	updates       int  // WINDOW_UPDATE frames that are no glitches; see updatesPerWrite
	draining      bool // GOAWAY was sent or is about to be
	ending        bool // the connection ends once its output is written
	handedOff     bool // to net/http
	closed        error
}

func newConn(base context.Context, server *Server, rwc net.Conn) *conn {
	c := &conn{server: server, raw: rwc, rwc: rwc, transport: newSocket(rwc), remoteAddr: rwc.RemoteAddr().String()}
	if server.TLSConfig != nil {
		c.rwc = tls.Server(c.transport, server.TLSConfig)
		c.transport = c.rwc
	}
	ctx := context.WithValue(base, http.LocalAddrContextKey, rwc.LocalAddr())
	if server.ConnContext != nil {
		ctx = server.ConnContext(ctx, c.rwc)
	}
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	c.output.drained.L = &c.mu
	c.flushQueued = c.flush
	return c
}

// serve serves the connection until it ends.
func (c *conn) serve() {
	c.setState(http.StateNew)
	handedOff, err := c.start()
	if handedOff {
		c.cancel(nil)
		return
	}
	if err == nil {
		err = c.read()
	}
	if failure, ok := errors.AsType[http2.ConnectionError](err); ok {
		c.fail(http2.ErrCode(failure))
		c.linger()
	}
	c.close(err)
	c.running.Wait()
	c.setState(http.StateClosed)
}

func (c *conn) setState(state http.ConnState) {
	if c.server.ConnState != nil {
		c.server.ConnState(c.rwc, state)
	}
}

// reportState reports that the connection has become active or idle.
func (c *conn) reportState() {
	if c.server.ConnState == nil {
		return
	}
	c.reporting.Lock()
	defer c.reporting.Unlock()
	c.mu.Lock()
	isActive := c.handlers > 0
	c.mu.Unlock()
	if isActive == c.active {
		return
	}
	c.active = isActive
	if isActive {
		c.setState(http.StateActive)
	} else {
		c.setState(http.StateIdle)
	}
}

// start makes the TLS handshake and reads the client preface. It returns true if net/http has taken the connection over.
func (c *conn) start() (handedOff bool, err error) {
	if err := c.startDeadline(); err != nil {
		return false, err
	}
	if c.server.TLSConfig != nil {
		isHTTP2, err := c.handshake()
		if err != nil {
			return false, err
		}
		if !isHTTP2 {
			return c.handOff(nil)
		}
	}
	c.in = buffered{from: counted{c}, small: make([]byte, idleReadBytes), pool: readBuffers}
	for {
		got := c.in.unread()
		count := min(len(got), len(http2.ClientPreface))
		if string(got[:count]) != http2.ClientPreface[:count] {
			line, _, complete := bytes.Cut(got, []byte("\r\n"))
			if c.server.TLSConfig != nil || complete && !bytes.Contains(line, []byte(" HTTP/1.")) {
				return false, errPreface
			}
			return c.handOff(slices.Clone(got))
		}
		if count == len(http2.ClientPreface) {
			c.in.take(count)
			break
		}
		if err := c.in.fill(count + 1); err != nil {
			if count > 0 && c.server.TLSConfig == nil && errors.Is(err, io.EOF) {
				return c.handOff(slices.Clone(got))
			}
			return false, err
		}
	}
	return false, c.startHTTP2()
}

// startDeadline sets the deadline of the TLS handshake and the client preface.
func (c *conn) startDeadline() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return http.ErrServerClosed
	}
	return c.rwc.SetDeadline(time.Now().Add(c.server.ReadHeaderTimeout))
}

var errPreface = errors.New("neither the preface of HTTP/2 nor a request of HTTP/1.1")

// handOff gives the connection to net/http, unless the server shuts down.
func (c *conn) handOff(read []byte) (handedOff bool, err error) {
	c.mu.Lock()
	c.handedOff = !c.draining
	err = c.rwc.SetDeadline(time.Time{})
	c.mu.Unlock()
	conn := c.rwc
	if len(read) > 0 {
		conn = &replayConn{Conn: conn, read: read}
	}
	if err != nil || !c.handedOff || !c.server.handoff.give(conn) {
		return false, errors.Join(http.ErrServerClosed, err)
	}
	return true, nil
}

// handshake makes the TLS handshake. It returns whether the client speaks HTTP/2.
func (c *conn) handshake() (isHTTP2 bool, err error) {
	secure, _ := c.rwc.(*tls.Conn)
	if err := secure.HandshakeContext(c.ctx); err != nil {
		if notTLS, ok := errors.AsType[tls.RecordHeaderError](err); ok && notTLS.Conn != nil && looksLikeHTTP(notTLS.RecordHeader) {
			_, _ = io.WriteString(notTLS.Conn, "HTTP/1.0 400 Bad Request\r\nContent-Type: text/plain\r\n\r\nThis port speaks TLS: use https.\n")
		}
		return false, err
	}
	state := secure.ConnectionState()
	c.tls = &state
	return state.NegotiatedProtocol == http2.NextProtoTLS, nil
}

// looksLikeHTTP reports whether the first bytes of a connection are those of a request in clear.
func looksLikeHTTP(start [5]byte) bool {
	switch string(start[:]) {
	case "GET /", "POST ", "PUT /", "HEAD ", "OPTIO", "PRI *":
		return true
	default:
		return false
	}
}

// startHTTP2 sends the server's preface.
func (c *conn) startHTTP2() error {
	c.decoder = hpack.NewDecoder(headerTableSize, c.decodeField)
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.rwc.SetDeadline(time.Time{}); err != nil {
		return err
	}
	c.arrivals.Add(1) // SETTINGS belong to the preface.
	c.ready.Store(true)
	c.streams = make(map[uint32]*stream)
	c.sendWindow, c.initialWindow = defaultWindow, defaultWindow
	c.glitches = maxGlitches + 2*c.server.MaxStreams
	c.updates = maxGlitches
	c.output.appendSettings(
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: uint32(c.server.MaxStreams)},
		http2.Setting{ID: http2.SettingInitialWindowSize, Val: uint32(c.server.StreamWindow)},
		http2.Setting{ID: http2.SettingMaxHeaderListSize, Val: uint32(c.server.MaxHeaderBytes)},
	)
	c.output.appendWindowUpdate(0, connWindow-defaultWindow)
	c.startWriter()
	if c.tls != nil && !isAdequate(c.tls) {
		return http2.ConnectionError(http2.ErrCodeInadequateSecurity)
	}
	if c.draining {
		c.sendGoAway()
	}
	return nil
}

// defaultWindow is the initial flow-control window of connections and streams in bytes
// (https://www.rfc-editor.org/rfc/rfc9113#section-6.9.2).
const defaultWindow = 65_535

// isAdequate reports whether TLS is as strong as HTTP/2 demands: version 1.3, or 1.2 with ephemeral keys and authenticated
// encryption (https://www.rfc-editor.org/rfc/rfc9113#section-9.2).
func isAdequate(state *tls.ConnectionState) bool {
	if state.Version != tls.VersionTLS12 {
		return state.Version > tls.VersionTLS12
	}
	switch state.CipherSuite {
	case tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, tls.TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
		tls.TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384, tls.TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,
		tls.TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256, tls.TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256:
		return true
	default:
		return false
	}
}

// counted reads the connection and counts the reads.
type counted struct{ conn *conn }

func (r counted) Read(p []byte) (int, error) {
	n, err := r.conn.transport.Read(p)
	r.conn.reads.Add(1)
	return n, err
}

// fail ends the connection with GOAWAY, because of an error of the client
// (https://www.rfc-editor.org/rfc/rfc9113#section-5.4.1).
func (c *conn) fail(code http2.ErrCode) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ending || c.closed != nil {
		return
	}
	c.draining, c.ending = true, true
	c.output.appendGoAway(c.lastServed, code)
	c.abortStreams(http2.ConnectionError(code))
	c.server.Logger.Debug("connection failed", "client", c.remoteAddr, "code", code)
	c.startWriter()
}

// linger reads and drops what the client still sends: it may not have read the GOAWAY.
func (c *conn) linger() {
	_ = c.rwc.SetReadDeadline(time.Now().Add(lingerTimeout))
	_, _ = io.CopyN(io.Discard, c.transport, lingerBytes)
}

// close ends the connection at once, with a cause for its streams. Only the first call counts.
func (c *conn) close(cause error) {
	c.mu.Lock()
	if c.closed == nil {
		if cause == nil || errors.Is(cause, io.EOF) {
			cause = io.ErrUnexpectedEOF // To a handler, EOF is the end of a request.
		}
		c.closed = fmt.Errorf("connection closed: %w", cause)
		c.cancel(c.closed)
		c.abortStreams(c.closed)
		c.output.close()
	}
	c.mu.Unlock()
	_ = c.raw.Close() // Close of TLS could block for seconds.
}

// abortStreams ends all streams with a cause, without frames. The caller holds c.mu.
func (c *conn) abortStreams(cause error) {
	for _, stream := range c.streams {
		stream.abort(cause)
	}
	clear(c.streams)
}

// goAway begins the graceful shutdown of the connection, in two phases: the first GOAWAY still allows the streams that are on the way,
// and the second one, after a round trip, names the last stream (https://www.rfc-editor.org/rfc/rfc9113#section-6.8).
func (c *conn) goAway() {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.handedOff || c.draining:
	case c.ready.Load():
		c.draining = true
		c.sendGoAway()
	default:
		// Nothing was asked for yet.
		c.draining = true
		_ = c.raw.SetReadDeadline(past)
	}
}

var past = time.Unix(1, 0)

// goAwayPing is the payload of the PING that measures the round trip between the two GOAWAY frames.
var goAwayPing = [8]byte{'g', 'o', ' ', 'a', 'w', 'a', 'y'}

func (c *conn) sendGoAway() {
	c.output.appendGoAway(1<<31-1, http2.ErrCodeNo)
	c.output.appendPing(false, goAwayPing)
	c.startWriter()
}

// endGoAway is the second phase of goAway. The caller holds c.mu.
func (c *conn) endGoAway() {
	if !c.output.namedLast {
		c.output.namedLast = true
		c.output.appendGoAway(c.lastServed, http2.ErrCodeNo)
		c.endIfDone()
		c.startWriter()
	}
}

// endIfDone ends a connection that has sent its last GOAWAY and has no stream any more. The caller holds c.mu.
func (c *conn) endIfDone() {
	if c.output.namedLast && len(c.streams) == 0 && c.handlers == 0 && !c.ending {
		c.ending = true
		c.startWriter()
	}
}

const (
	// maxGlitches is how many glitches a client may make at once, beyond two for each concurrent stream, and glitchesPerSecond how
	// many more in each second.
	maxGlitches       = 1000
	glitchesPerSecond = 200
)

// spend takes a glitch from the connection's token bucket. Glitches are what costs the server more than the client, and what good clients
// do seldom: streams that are reset before their response, by the client or because of its errors, SETTINGS, and frames
// without effect. It returns an error if the bucket is empty. The caller holds c.mu.
func (c *conn) spend() error {
	if c.glitches--; c.glitches < 0 {
		return http2.ConnectionError(http2.ErrCodeEnhanceYourCalm)
	}
	return nil
}

// refill gives tokens back: for time that has passed, and for streams that ended well. The caller holds c.mu.
func (c *conn) refill(count int) {
	c.glitches = min(c.glitches+count, maxGlitches+2*c.server.MaxStreams)
}

// resetStreams remembers the last streams that the server has closed while the client could still send. Their frames may be on the way and
// are dropped (https://www.rfc-editor.org/rfc/rfc9113#section-5.1).
type resetStreams struct {
	ids  []uint32 // ring buffer
	next int
}

// maxResetStreams is how many streams are remembered.
const maxResetStreams = 256

func (r *resetStreams) add(id uint32) {
	if len(r.ids) < maxResetStreams {
		r.ids = append(r.ids, id)
		return
	}
	r.ids[r.next] = id
	r.next = (r.next + 1) % maxResetStreams
}

func (r *resetStreams) has(id uint32) bool {
	return slices.Contains(r.ids, id)
}
