//go:build invariants

package gpu

import "fmt"

// misuse stops the program where its own code broke a rule.
func misuse(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
