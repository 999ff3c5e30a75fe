package h2

// send queues DATA. It blocks while the client takes no more, or while much output is queued. The caller holds c.mu.
func (s *stream) send(data []byte, end bool) (int, error) {
	c := s.conn
	s.sending = true
	defer func() { s.sending = false }()
	sent := 0
	for {
		n, err := s.reserve(len(data) - sent)
		if err != nil {
			return sent, err
		}
		last := sent+n == len(data)
		s.queue(data[sent:sent+n], end && last)
		c.updates += (sent+n)/bytesPerUpdate - sent/bytesPerUpdate // Before the end: a write may be larger than any budget.
		if sent += n; last {
			c.updates += updatesPerWrite
			return sent, nil
		}
	}
}

// queue appends DATA within the windows. The caller holds c.mu.
func (s *stream) queue(data []byte, end bool) {
	c := s.conn
	s.sendWindow -= int64(len(data))
	c.sendWindow -= int64(len(data))
	c.output.appendData(s, data, end)
	c.leave(s)
}

// reserve blocks until DATA of the stream may be queued, and returns how many bytes of want. The caller holds c.mu.
//
// A stream waits for its own window alone, and for what all streams of the connection share in the order of arrival.
func (s *stream) reserve(want int) (int, error) {
	c := s.conn
	for {
		if s.outErr != nil {
			c.leave(s)
			return 0, s.outErr
		}
		if want == 0 {
			return 0, nil
		}
		waiting := c.output.waiting
		isNext := len(waiting) == 0 || waiting[0] == s
		n := int(min(int64(want), s.sendWindow, c.sendWindow, maxFrame))
		switch {
		case s.sendWindow <= 0:
			c.leave(s)
		case isNext && n > 0 && len(c.output.queued) < maxQueued:
			return n, nil
		case !isNext || len(waiting) == 0:
			c.join(s)
		}
		c.startWriter()
		s.writable.Wait()
	}
}

// Stream is implemented by the [http.ResponseWriter] of an HTTP/2 stream of [Server].
type Stream interface {
	// TryWrite queues a copy of data as a part of the response's body. It does not block, and any goroutine may call it. It returns false, and
	// queues nothing, if the handler is in a Write, the response headers were not flushed, the stream has ended, or the data does not fit
	// into the flow-control windows and the queue. The caller must call flush, unless it is nil, after it has written to other
	// streams: it flushes the connection.
	TryWrite(data []byte) (flush func(), ok bool)
}

// TryWrite implements [Stream].
func (w *responseWriter) TryWrite(data []byte) (flush func(), ok bool) {
	s, c := (*stream)(w), w.conn
	c.mu.Lock()
	defer c.mu.Unlock()
	if s.sending || !s.begun || !s.hasBody || s.outErr != nil || len(c.output.waiting) > 0 || len(c.output.queued)+len(data) > maxQueued ||
		int64(len(data)) > min(s.sendWindow, c.sendWindow, maxFrame) {
		return nil, false
	}
	s.queue(data, false)
	c.updates += updatesPerWrite + len(data)/bytesPerUpdate
	if len(c.output.queued) > maxQueued/2 {
		c.startWriter() // Else the queue would be full before it is flushed.
	}
	if c.output.writing || c.output.flushDue {
		return nil, true
	}
	c.output.flushDue = true
	return c.flushQueued, true
}

// flush is what TryWrite returns.
func (c *conn) flush() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.output.flushDue = false
	c.startWriter()
}
