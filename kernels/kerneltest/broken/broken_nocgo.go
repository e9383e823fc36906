//go:build !cgo

package broken
