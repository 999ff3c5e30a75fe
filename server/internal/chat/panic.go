package chat

import (
	"fmt"
	"runtime/debug"
)

// A PanicError is a recovered panic of one chat. It ends that chat only.
type PanicError struct {
	// Value is the argument of panic, and Stack the stack trace of its goroutine.
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic: %v", e.Value)
}

// guarded calls f and returns its panic, if any, as a [PanicError].
func guarded(f func() error) (err error) {
	defer recoverTo(&err)
	return f()
}

// recoverTo sets err to the panic of the function that defers it, if it panics.
func recoverTo(err *error) {
	if value := recover(); value != nil {
		*err = &PanicError{Value: value, Stack: debug.Stack()}
	}
}
