package proximal

// SolveWithoutH is Solve by conjugate gradients whatever d.
func SolveWithoutH(a Args) error { return solve(a, 0) }
