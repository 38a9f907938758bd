import Reactor
import Testing

@Suite struct SlabTests {
    struct Thing: ~Copyable { var value: Int }

    @Test("a token of an earlier use of a slot is recognised as stale")
    func staleToken() {
        var slab = Slab<Thing>()
        let first = slab.insert { _, _ in Thing(value: 1) }
        let token = Token(slot: first, generation: slab.generation(first), kind: 3)
        let isFresh = slab.holds(token.slot, generation: token.generation)
        #expect(isFresh)
        _ = slab.remove(first)
        let isStale = !slab.holds(token.slot, generation: token.generation)
        #expect(isStale)
        let second = slab.insert { _, _ in Thing(value: 2) }
        #expect(second == first)
        let isStillStale = !slab.holds(token.slot, generation: token.generation)
        #expect(isStillStale)
        #expect(token.kind == 3 && token.with(kind: 9).kind == 9 && token.with(kind: 9).slot == token.slot)
    }

    @Test("random inserts and removals agree with a dictionary")
    func againstModel() {
        var random = SeededGenerator(seed: 3)
        var slab = Slab<Thing>()
        var model: [UInt32: Int] = [:]
        for step in 0..<20_000 {
            if model.isEmpty || Int.random(in: 0..<10, using: &random) < 5 {
                let slot = slab.insert { _, _ in Thing(value: step) }
                #expect(model.updateValue(step, forKey: slot) == nil)
            } else if let (slot, value) = model.randomElement(using: &random) {
                let stored = slab[slot].value
                #expect(stored == value)
                let removed = slab.remove(slot)
                let removedValue = removed.value
                #expect(removedValue == value)
                model[slot] = nil
            }
            let count = slab.count
            #expect(count == model.count)
        }
    }
}

@Suite struct TimersTests {
    @Test("no deadline is early, none later than a tick, cleared ones never come: random against a dictionary")
    func againstModel() {
        var random = SeededGenerator(seed: 5)
        var now: Int64 = 1_000
        var timers = Timers(now: now)
        var model: [UInt32: Int64] = [:]
        var due: [UInt32] = []
        for _ in 0..<30_000 {
            switch Int.random(in: 0..<10, using: &random) {
            case 0..<5:
                let slot = UInt32.random(in: 0..<200, using: &random)
                let far = Bool.random(using: &random)
                let deadline = now + Int64.random(in: -20...(far ? 100_000 : 300), using: &random)
                timers.set(slot, deadline: deadline)
                model[slot] = deadline
            case 5:
                let slot = UInt32.random(in: 0..<200, using: &random)
                timers.set(slot, deadline: nil)
                model[slot] = nil
            default:
                if let wait = timers.millisecondsUntilNext(now: now) {
                    // The promise: sleeping that long never oversleeps a deadline by more than two ticks.
                    let earliest = model.values.min() ?? .max
                    #expect(now + wait <= max(earliest, now) + 2 * Timers.tickMilliseconds)
                } else {
                    #expect(model.isEmpty)
                }
                now += Int64.random(in: 0...(Int.random(in: 0..<50, using: &random) == 0 ? 40_000 : 60), using: &random)
                due.removeAll()
                timers.advance(to: now, into: &due)
                for slot in due {
                    let deadline = model.removeValue(forKey: slot)
                    #expect(deadline != nil && (deadline ?? .max) <= now)
                }
                for deadline in model.values { #expect(deadline >= now - 2 * Timers.tickMilliseconds) }
            }
        }
    }

    @Test("an idle wheel asks for no wake-up")
    func idle() {
        var timers = Timers(now: 0)
        let before = timers.millisecondsUntilNext(now: 0)
        #expect(before == nil)
        timers.set(4, deadline: 100)
        timers.set(4, deadline: nil)
        let after = timers.millisecondsUntilNext(now: 50)
        #expect(after == nil)
    }
}
