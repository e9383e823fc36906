// Package gorgoniacu takes device memory and streams of a program that already
// uses gorgonia.org/cu, and gives it memory of ours.
//
// The package is empty unless it is built with the tag cu. It is apart because
// gorgonia.org/cu v0.9.6 needs the headers of the CUDA SDK to build (those of
// 11.8, 12.1 and 12.9 will do, those of 13.0 will not) and ends the process at
// its start where there is no driver; nothing else of this module does either.
// With the headers outside of /usr/local/cuda:
//
//	CGO_CFLAGS=-I/path/to/include CGO_LDFLAGS=-L/path/to/lib go build -tags cu
//
// Memory belongs to a CUDA context. Device libraries of package gpu work in
// the primary context of a device, so the program's own memory must come from
// that one too (Device.RetainPrimaryCtx, not MakeContext), and the context must
// be current on the OS thread of a call.
//
// Queues do not know of each other. Between work of a cu.Stream and work of a
// gpu.Device on the same memory stands a call of Sync.
package gorgoniacu
