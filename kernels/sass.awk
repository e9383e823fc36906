# sass.awk - what is in the machine code of kernels: reads what nvdisasm prints of
# a cubin and writes, for each kernel, lines of fields with tabs between them:
#
#   kernel  NAME  THREADS                     of a block: from __launch_bounds__, or 0
#   code    NAME  whole  0  INSTRUCTION  COUNT  of all its machine code
#   code    NAME  loop   N  INSTRUCTION  COUNT  of its Nth innermost loop, in the order of addresses
#   code    NAME  path   N  INSTRUCTION  COUNT  of that loop without what its forward branches jump over
#   code    NAME  around N  INSTRUCTION  COUNT  of its Nth other loop, without the loops in it and without jumps
#
# INSTRUCTION is a class of opcodes, or "all". A loop is what lies between a
# label and a branch back to it; one without another inside is innermost. NAMEs are
# mangled. build.sh check calls it.

BEGIN {
  OFS = "\t"
  classes = "HMMA IMMA DMMA MUFU.EX2 MUFU FFMA FADD FMUL FMNMX FSETP FSEL DFMA DADD DMUL IMAD IADD LOP SHF LDG.128 LDG STG.128 STG LDGSTS LDSM LDS STS LDC SHFL BAR BRA other"
  order = split(classes, in_order, " ")
}

function class(op, names, i) {
  if (op ~ /^MUFU\.EX2/) return "MUFU.EX2"
  if (op ~ /^LDG.*\.128/) return "LDG.128"
  if (op ~ /^STG.*\.128/) return "STG.128"
  sub(/\..*/, "", op)
  if (op ~ /^(IADD3?|IMNMX|ISETP|LEA|VIADD|VIMNMX|IABS|UIADD3|ULEA|UISETP)$/) return "IADD"
  if (op ~ /^(LOP3|PLOP3|ULOP3|PRMT)$/) return "LOP"
  if (op ~ /^(SHF|SHL|SHR|USHF)$/) return "SHF"
  if (op ~ /^(IMAD|UIMAD|IMUL|MOV|UMOV)$/) return "IMAD"
  if (op ~ /^(LDC|ULDC)$/) return "LDC"
  if (op == "LDSM") return "LDSM"
  if (op ~ /^(BAR|WARPSYNC|BSYNC|BSSY)$/) return op == "BAR" ? "BAR" : "other"
  if (op ~ /^(HMMA|IMMA|DMMA|MUFU|FFMA|FADD|FMUL|FMNMX|FSETP|FSEL|DFMA|DADD|DMUL|LDG|STG|LDGSTS|LDS|STS|SHFL|BRA)$/) return op
  return "other"
}

function close_kernel(   b, l, i, c, inner, from, to) {
  if (name == "") return
  print "kernel", name, threads[name] + 0
  emit("whole", 0, 0, count - 1)
  loops = others = 0
  for (b = 0; b < branches; b++) {
    from = label[target[b]]
    to = at[b]
    if (from == "" || from >= to) continue
    split("", skipped)
    inner = 1
    for (i = 0; i < branches; i++) {
      l = label[target[i]]
      if (i == b || l == "") continue
      if (l <= at[i] && l >= from && at[i] <= to && !(l == from && at[i] == to)) {
        inner = 0
        for (c = l; c <= at[i]; c++) skipped[c] = 1
      }
    }
    if (inner) emit("loop", ++loops, from, to)
    for (i = 0; i < branches; i++) {
      l = label[target[i]]
      if (at[i] >= from && at[i] < to && l > at[i] && l <= to) for (c = at[i] + 1; c < l; c++) skipped[c] = 1
    }
    if (inner) emit("path", loops, from, to)
    else emit("around", ++others, from, to)
    split("", skipped)
  }
  name = ""
}

function emit(what, n, from, to,   i, total, all) {
  split("", total)
  for (i = from; i <= to; i++) {
    if (i in skipped) continue
    total[kind[i]]++
    all++
  }
  print "code", name, what, n, "all", all
  for (i = 1; i <= order; i++) if (total[in_order[i]]) print "code", name, what, n, in_order[i], total[in_order[i]]
}

/^\t\.section\t/ {
  section = $2
  sub(/,.*/, "", section)
  info = ""
  if (section ~ /^\.nv\.info\./) info = substr(section, 10)
  close_kernel()
}
info != "" && /nvinfo : EIATTR_/ { wanted = /EIATTR_MAX_THREADS$/ ? 3 : 0 }
info != "" && wanted && /\.word\t/ {
  value = hexadecimal($NF)
  threads[info] = (threads[info] == "" ? 1 : threads[info]) * value
  wanted--
}

/^\.text\./ {
  close_kernel()
  name = substr($1, 7)
  sub(/:$/, "", name)
  count = branches = 0
  split("", label)
}
name != "" && /^\.L_x_[0-9]+:/ { at_label = $1; sub(/:$/, "", at_label); label[at_label] = count }
name != "" && /^ +\/\*[0-9a-f]+\*\/ / {
  op = $2
  if (op ~ /^@/) op = $3
  if (op == "NOP") next
  if (op ~ /^BRA/ && match($0, /\.L_x_[0-9]+/)) { target[branches] = substr($0, RSTART, RLENGTH); at[branches++] = count }
  kind[count++] = class(op)
}
END { close_kernel() }

function hexadecimal(text,   i, v) {
  text = tolower(text)
  sub(/^0x/, "", text)
  for (i = 1; i <= length(text); i++) v = v * 16 + index("0123456789abcdef", substr(text, i, 1)) - 1
  return v
}
