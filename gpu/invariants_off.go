//go:build !invariants

package gpu

// invariants is whether broken rules stop the program.
const invariants = false

// misuse does nothing in this build; see invariants_on.go.
func misuse(string, ...any) {}
