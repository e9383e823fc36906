// Package cuda hands the header of nccl.cu to gpu/collective. All else in this
// folder is CUDA source, which build.sh compiles into the device library.
package cuda

import _ "embed"

// NCCL is nccl.h, whose hash a device library carries.
//
//go:embed nccl.h
var NCCL string
