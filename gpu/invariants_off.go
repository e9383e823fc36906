//go:build !invariants

package gpu

// misuse does nothing in this build; see invariants_on.go.
func misuse(string, ...any) {}
