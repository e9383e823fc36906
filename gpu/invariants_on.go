//go:build invariants

package gpu

import "fmt"

// invariants is whether broken rules stop the program.
const invariants = true

// misuse stops the program where its own code broke a rule.
func misuse(format string, args ...any) { panic(fmt.Sprintf(format, args...)) }
