package chat

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a panic in a chat. It ends that chat, and no other.
type PanicError struct {
	// Value is what panic was called with, and Stack where.
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic: %v", e.Value)
}

// guarded calls f, and returns its panic as an error.
func guarded(f func() error) (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = &PanicError{Value: value, Stack: debug.Stack()}
		}
	}()
	return f()
}
