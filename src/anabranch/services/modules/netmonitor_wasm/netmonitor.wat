;; NetMonitor in WebAssembly: counts packets by source, destination and TTL, and forwards them all.
;; What the exports are for: docs/protocols/wasm.md.
;;
;; Memory: 0 words, 256 the text of a status, 65536 the table, 196608 what alloc gives away.
;; The table has 4096 places of 32 bytes: source, destination, TTL + 1 (0: free), -, count (8 bytes).
(module
  (import "anabranch" "answer" (func $answer (param $at i32) (param $bytes i32)))
  (memory (export "memory") 4)
  (data (i32.const 0) "flows=counted=elsewhere=")
  (global $heap (mut i32) (i32.const 196608))
  (global $text (mut i32) (i32.const 256))
  (global $elsewhere (mut i64) (i64.const 0))  ;; packets whose flow found no place

  (func (export "anabranch_abi") (result i32) (i32.const 1))

  ;; Blocks are never given back; null if there is no more memory.
  (func (export "alloc") (param $bytes i32) (result i32)
    (local $at i32) (local $end i32) (local $pages i32)
    (local.set $at (global.get $heap))
    (local.set $end (i32.add (local.get $at)
      (i32.and (i32.add (local.get $bytes) (i32.const 15)) (i32.const -16))))
    (if (i32.lt_u (local.get $end) (local.get $at)) (then (return (i32.const 0))))
    (local.set $pages (i32.sub
      (i32.shr_u (i32.add (local.get $end) (i32.const 65535)) (i32.const 16)) (memory.size)))
    (if (i32.gt_s (local.get $pages) (i32.const 0))
      (then (if (i32.eq (memory.grow (local.get $pages)) (i32.const -1))
        (then (return (i32.const 0))))))
    (global.set $heap (local.get $end))
    (local.get $at))

  (func (export "process")
    (param $packets i32) (param $count i32) (param $stride i32) (param $verdicts i32)
    (local $end i32)
    (local.set $end
      (i32.add (local.get $packets) (i32.mul (local.get $count) (local.get $stride))))
    (loop $next
      (if (i32.lt_u (local.get $packets) (local.get $end)) (then
        (if (i32.eq (i32.shr_u (i32.load8_u (local.get $packets)) (i32.const 4)) (i32.const 4))
          (then (call $count
            (i32.load offset=12 (local.get $packets)) (i32.load offset=16 (local.get $packets))
            (i32.load8_u offset=8 (local.get $packets))))
          (else (call $count
            (i32.const 0) (i32.const 0) (i32.load8_u offset=7 (local.get $packets)))))
        (local.set $packets (i32.add (local.get $packets) (local.get $stride)))
        (br $next)))))

  (func $count (param $source i32) (param $destination i32) (param $ttl i32)
    (local $hash i32) (local $place i32) (local $tries i32)
    (local.set $ttl (i32.add (local.get $ttl) (i32.const 1)))
    (local.set $hash (i32.add
      (i32.add (i32.mul (local.get $source) (i32.const 0x9E3779B1))
               (i32.mul (local.get $destination) (i32.const 0x85EBCA6B)))
      (i32.mul (local.get $ttl) (i32.const 0xC2B2AE35))))
    (local.set $hash (i32.mul
      (i32.xor (local.get $hash) (i32.shr_u (local.get $hash) (i32.const 15)))
      (i32.const 0x2C1B3C6D)))
    (local.set $hash (i32.shr_u (local.get $hash) (i32.const 20)))
    (loop $try
      (local.set $place (i32.add (i32.const 65536) (i32.shl (local.get $hash) (i32.const 5))))
      (if (i32.eqz (i32.load offset=8 (local.get $place))) (then
        (i32.store (local.get $place) (local.get $source))
        (i32.store offset=4 (local.get $place) (local.get $destination))
        (i32.store offset=8 (local.get $place) (local.get $ttl))))
      (if (i32.and (i32.and
            (i32.eq (i32.load (local.get $place)) (local.get $source))
            (i32.eq (i32.load offset=4 (local.get $place)) (local.get $destination)))
            (i32.eq (i32.load offset=8 (local.get $place)) (local.get $ttl)))
        (then
          (i64.store offset=16 (local.get $place)
            (i64.add (i64.load offset=16 (local.get $place)) (i64.const 1)))
          (return)))
      (local.set $hash (i32.and (i32.add (local.get $hash) (i32.const 1)) (i32.const 4095)))
      (local.set $tries (i32.add (local.get $tries) (i32.const 1)))
      (br_if $try (i32.lt_u (local.get $tries) (i32.const 16))))
    (global.set $elsewhere (i64.add (global.get $elsewhere) (i64.const 1))))

  ;; flows, counted, elsewhere, then the ten largest as SOURCE_DESTINATION_TTL=COUNT
  (func (export "status")
    (local $place i32) (local $flows i64) (local $counted i64)
    (local $rank i32) (local $best i32) (local $count i64) (local $below i64)
    (local.set $counted (global.get $elsewhere))
    (local.set $place (i32.const 65536))
    (loop $next
      (if (i32.load offset=8 (local.get $place)) (then
        (local.set $flows (i64.add (local.get $flows) (i64.const 1)))
        (local.set $counted
          (i64.add (local.get $counted) (i64.load offset=16 (local.get $place))))))
      (local.set $place (i32.add (local.get $place) (i32.const 32)))
      (br_if $next (i32.lt_u (local.get $place) (i32.const 196608))))
    (global.set $text (i32.const 256))
    (call $words (i32.const 0) (i32.const 6)) (call $number (local.get $flows))
    (call $letter (i32.const 10))
    (call $words (i32.const 6) (i32.const 8)) (call $number (local.get $counted))
    (call $letter (i32.const 10))
    (call $words (i32.const 14) (i32.const 10)) (call $number (global.get $elsewhere))
    (call $letter (i32.const 10))
    (local.set $below (i64.const -1))
    (local.set $best (i32.const 0))
    (block $enough (loop $ranks
      (local.set $best (call $largest_after (local.get $best) (local.get $below)))
      (br_if $enough (i32.eqz (local.get $best)))
      (local.set $below (i64.load offset=16 (local.get $best)))
      (call $address (local.get $best)) (call $letter (i32.const 95))
      (call $address (i32.add (local.get $best) (i32.const 4))) (call $letter (i32.const 95))
      (call $number (i64.extend_i32_u
        (i32.sub (i32.load offset=8 (local.get $best)) (i32.const 1))))
      (call $letter (i32.const 61)) (call $number (local.get $below)) (call $letter (i32.const 10))
      (local.set $rank (i32.add (local.get $rank) (i32.const 1)))
      (br_if $ranks (i32.lt_u (local.get $rank) (i32.const 10)))))
    (call $answer (i32.const 256) (i32.sub (global.get $text) (i32.const 256))))

  ;; The place with the largest count that comes after `last`, whose count is `below`; 0: none.
  ;; Of equal counts the one further on comes later.
  (func $largest_after (param $last i32) (param $below i64) (result i32)
    (local $place i32) (local $best i32) (local $most i64) (local $count i64)
    (local.set $place (i32.const 65536))
    (loop $next
      (local.set $count (i64.load offset=16 (local.get $place)))
      (if (i32.and
            (i64.gt_u (local.get $count) (local.get $most))
            (i32.or (i64.lt_u (local.get $count) (local.get $below))
              (i32.and (i64.eq (local.get $count) (local.get $below))
                       (i32.gt_u (local.get $place) (local.get $last)))))
        (then
          (local.set $most (local.get $count))
          (local.set $best (local.get $place))))
      (local.set $place (i32.add (local.get $place) (i32.const 32)))
      (br_if $next (i32.lt_u (local.get $place) (i32.const 196608))))
    (local.get $best))

  (func (export "take_state") (call $answer (i32.const 65536) (i32.const 131072)))

  (func (export "restore_state") (param $at i32) (param $bytes i32) (result i32)
    (if (i32.ne (local.get $bytes) (i32.const 131072)) (then (return (i32.const 1))))
    (memory.copy (i32.const 65536) (local.get $at) (local.get $bytes))
    (i32.const 0))

  ;; Text

  (func $letter (param $letter i32)
    (i32.store8 (global.get $text) (local.get $letter))
    (global.set $text (i32.add (global.get $text) (i32.const 1))))

  (func $words (param $at i32) (param $bytes i32)
    (memory.copy (global.get $text) (local.get $at) (local.get $bytes))
    (global.set $text (i32.add (global.get $text) (local.get $bytes))))

  (func $number (param $number i64)
    (if (i64.ge_u (local.get $number) (i64.const 10))
      (then (call $number (i64.div_u (local.get $number) (i64.const 10)))))
    (call $letter (i32.add (i32.const 48)
      (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10))))))

  (func $address (param $at i32)
    (local $end i32)
    (local.set $end (i32.add (local.get $at) (i32.const 4)))
    (loop $next
      (call $number (i64.extend_i32_u (i32.load8_u (local.get $at))))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.lt_u (local.get $at) (local.get $end)) (then
        (call $letter (i32.const 46))
        (br $next))))))
