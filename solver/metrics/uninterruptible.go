package metrics

import "context"

// uninterruptible runs f, which cannot be stopped, on a goroutine of its own
// and leaves it to itself where ctx is done first.
func uninterruptible(ctx context.Context, f func() error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	done := make(chan error, 1)
	go func() { done <- f() }()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
