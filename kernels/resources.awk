# resources.awk - joins what ptxas and kernels/sass.awk say of kernels into a table,
# and adds how many blocks a multiprocessor has room for. Input lines have tabs:
#
#   dynamic  PATTERN  BYTES                       of dynamic shared memory, see build.sh
#   used     NAME  REGISTERS  STACK  SPILLS  SHARED
#   kernel   NAME  THREADS                       and code, of sass.awk
#
# build.sh check calls it, with source and arch; with header=1 it writes the titles.

BEGIN {
  FS = OFS = "\t"
  classes = "HMMA IMMA DMMA MUFU.EX2 MUFU FFMA FADD FMUL FMNMX FSETP FSEL DFMA DADD DMUL IMAD IADD LOP SHF LDG.128 LDG STG.128 STG LDGSTS LDSM LDS STS LDC SHFL BAR BRA other"
  count = split(classes, class, " ")
  if (header) {
    line = "source" OFS "kernel" OFS "arch" OFS "part" OFS "registers" OFS "shared" OFS "stack" OFS "spills" OFS "threads" OFS "blocks" OFS "instructions"
    for (i = 1; i <= count; i++) line = line OFS class[i]
    print line
    exit
  }
}

# Blocks that fit into a multiprocessor at once (CUDA C++ programming guide,
# "Compute capabilities"): 64 warps, 32 blocks, 16384 registers for the warps of
# each quarter, given out by 256, and 164 or 228 KiB of shared memory, of which a
# block takes 1 KiB for itself.
function blocks(registers, bytes, threads,   warps, each, most, fit) {
  if (!threads) return ""
  warps = int((threads + 31) / 32)
  each = int((registers * 32 + 255) / 256) * 256
  most = int(16384 / each) * 4
  if (most > 64) most = 64
  fit = int(most / warps)
  if (fit > 32) fit = 32
  room = int((arch == "sm_90" ? 233472 : 167936) / (bytes + 1024))
  return room < fit ? room : fit
}

function flush_part(   line, i) {
  if (part == "") return
  line = source OFS name OFS arch OFS part OFS registers[name] OFS shared[name] OFS stack[name] OFS spills[name] \
    OFS (threads[name] ? threads[name] : "") OFS blocks(registers[name], shared[name], threads[name]) OFS total
  for (i = 1; i <= count; i++) line = line OFS found[class[i]] + 0
  print line
  part = ""
}

$1 == "dynamic" { pattern[++patterns] = $2; bytes[patterns] = $3 }
$1 == "used" { registers[$2] = $3; stack[$2] = $4; spills[$2] = $5; shared[$2] = $6 }
$1 == "kernel" {
  flush_part()
  threads[$2] = $3
  for (i = 1; i <= patterns; i++) if ($2 ~ pattern[i]) shared[$2] += bytes[i]
}
$1 == "code" {
  if ($5 == "all") {
    flush_part()
    name = $2
    part = $3 == "whole" ? $3 : $3 " " $4
    total = $6
    split("", found)
  } else {
    found[$5] = $6
  }
}
END { if (!header) flush_part() }
