//go:build cgo

package softmin

// Rate is rate, for benchmarks.
var Rate = rate
