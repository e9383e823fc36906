package dataset

import (
	"fmt"
	"strconv"
	"strings"
)

// condition is column op value. Where value is a number, columns compare as
// numbers, else as text, by == and != alone.
type condition struct {
	column, op, value string
	number            float64
	numeric           bool
	index             int // of the column, once known
}

// conditions reads all options where; all of them must hold.
func (o *options) conditions() []condition {
	var list []condition
	for _, text := range o.values["where"] {
		for part := range strings.SplitSeq(text, " and ") {
			c, ok := parseCondition(part)
			if !ok {
				o.fail("where", part, "column op value, op one of == != < <= > >=, and a number after < <= > >=")
			}
			list = append(list, c)
		}
	}
	return list
}

func parseCondition(text string) (c condition, ok bool) {
	i := strings.IndexAny(text, "=!<>")
	if i < 0 {
		return c, false
	}
	c.op = text[i : i+1]
	if i+1 < len(text) && text[i+1] == '=' {
		c.op = text[i : i+2]
	}
	c.column = strings.TrimSpace(text[:i])
	c.value = strings.TrimSpace(text[i+len(c.op):])
	number, err := strconv.ParseFloat(c.value, 64)
	c.number, c.numeric = number, err == nil && number == number
	switch c.op {
	case "==", "!=":
		return c, c.column != ""
	case "<", "<=", ">", ">=":
		return c, c.column != "" && c.numeric
	}
	return c, false
}

// matches reports whether a field fulfils the condition. A field that is no
// number equals no number, and has no order.
func (c condition) matches(field string) (bool, error) {
	if !c.numeric {
		return (field == c.value) == (c.op == "=="), nil
	}
	x, err := strconv.ParseFloat(field, 64)
	if err != nil {
		if c.op == "==" || c.op == "!=" {
			return c.op == "!=", nil
		}
		return false, fmt.Errorf("got %q, want a number to compare by %s", abbreviate(field), c.op)
	}
	switch c.op {
	case "==":
		return x == c.number, nil
	case "!=":
		return x != c.number, nil
	case "<":
		return x < c.number, nil
	case "<=":
		return x <= c.number, nil
	case ">":
		return x > c.number, nil
	default:
		return x >= c.number, nil
	}
}
