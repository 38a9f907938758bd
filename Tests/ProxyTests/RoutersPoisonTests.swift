// Questions that kill routers: found among many others, which all get their answers.

import Testing

@testable import Proxy

@Suite("Routers: poison")
struct RoutersPoisonTests {
    @Test("a question that was the only one open at two deaths is poison")
    func aloneTwice() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(2), send(1, 2, to: 2, replay: 1)])
        desk.routers.died(r(2), .signalled(11), now: desk.now)
        #expect(desk.take() == [.release(r(2)), .fail(a(1), .poison)])
        #expect(desk.routers.counters.poisonous == 1)
    }

    @Test("signals that come from outside have to hit a question three times, for they say less about it")
    func outside() {
        let desk = Desk.ready()
        desk.ask(1)
        for router in UInt64(1)...3 {
            #expect(desk.take().last == send(1, 2, to: router, replay: UInt8(router - 1)))
            desk.routers.died(r(router), router == 2 ? .signalled(15) : .signalled(9), now: desk.now)
            desk.pass(500)
            desk.routers.greeted(r(router + 1), RouterAbilities(), now: desk.now)
        }
        #expect(desk.take().contains(.fail(a(1), .poison)))
    }

    @Test(
        "those that were open at a death are asked again by eight, and at two deaths one by one, with nothing beside them"
    )
    func trials() {
        let desk = Desk.ready()
        for asker in UInt64(1)...10 { desk.ask(asker) }
        _ = desk.take()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        let first = desk.take().dropFirst(2)
        #expect(first.elementsEqual((UInt64(1)...8).map { send($0, $0 + 1, to: 2, replay: 1) }))
        desk.ask(11)
        #expect(desk.take() == [])
        // The first one is innocent, the others are as suspicious as before.
        desk.settle(r(2), 2)
        #expect(desk.take() == [])
        desk.routers.died(r(2), .exited(1), now: desk.now)
        desk.routers.greeted(r(3), RouterAbilities(), now: desk.now)
        // Others first; then the two that were open at one death, then one by one.
        #expect(desk.take() == [.release(r(2)), spawn(3), send(11, 2, to: 3)])
        desk.settle(r(3), 2)
        #expect(desk.take() == [send(9, 3, to: 3, replay: 1), send(10, 4, to: 3, replay: 1)])
        desk.settle(r(3), 3)
        desk.settle(r(3), 4)
        for asker in UInt64(2)...8 {
            #expect(desk.take() == [send(asker, asker + 3, to: 3, replay: 2)])
            desk.settle(r(3), asker + 3)
        }
        #expect(desk.take() == [])
        #expect(desk.routers.openCount == 0)
    }

    @Test("a suspect that is slow holds nobody up: the others go on beside it, and have as long before the next trial")
    func slowSuspect() {
        let desk = Desk.ready(RouterAbilities(wantsCancel: true))
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        _ = desk.take()
        desk.ask(3)
        #expect(desk.take() == [])
        desk.pass(499)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [send(3, 4, to: 2)])
        #expect(desk.routers.turn == .others(until: desk.now + 500))
    }

    @Test("a trial does not wait for ever for a router that is busy")
    func busy() {
        let desk = Desk.ready()
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.ask(3)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [.release(r(1)), spawn(2), send(3, 2, to: 2)])
        desk.pass(499)
        desk.ask(4)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [send(1, 3, to: 2, replay: 1), send(2, 4, to: 2, replay: 1)])
    }

    @Test("of several routers one is kept for a trial, and the others go on")
    func severalRouters() {
        let desk = Desk { $0.routers = 2 }
        desk.routers.start(now: desk.now)
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        desk.routers.greeted(r(2), RouterAbilities(), now: desk.now)
        _ = desk.take()
        for asker in UInt64(1)...4 { desk.ask(asker) }
        #expect(desk.take() == [send(1, 2, to: 1), send(2, 2, to: 2), send(3, 3, to: 1), send(4, 3, to: 2)])
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.ask(5)
        // Nobody who is no suspect waits; the trial is at the one that comes.
        #expect(desk.take() == [.release(r(1)), spawn(3), send(5, 4, to: 2)])
        desk.routers.greeted(r(3), RouterAbilities(), now: desk.now)
        desk.settle(r(2), 2)
        desk.settle(r(2), 3)
        desk.settle(r(2), 4)
        desk.ask(6)
        let sent = desk.take()
        #expect(Set(sent.map { "\($0)" }).count == 3)
        #expect(desk.routers.turn.router != nil)
    }

    /// One router program in a simulated world: what it does with time, and what kills it.
    private struct World {
        var dice: Dice
        /// A script that takes one question after the other, or a router that works at all of them at once.
        let isBlocking: Bool
        let desk: Desk
        var running: UInt64 = 0
        var startsAt: Int64?
        /// What it has: the id, who asked, when it will be done.
        var work: [(id: UInt64, asker: UInt64, doneAt: Int64)] = []
        var poisons: Set<UInt64>
        var answered: Set<UInt64> = []
        var failed: [UInt64: QuestionFailure] = [:]
        var waits: [UInt64: Int64] = [:]
        var deaths = 0
        var kills: Int

        mutating func act() {
            for action in desk.take() {
                switch action {
                case .spawn(let router, _, _):
                    running = router.number
                    startsAt = desk.now + 60
                    work = []
                case .send(let question):
                    let start = isBlocking ? max(desk.now, work.last?.doneAt ?? 0) : desk.now
                    let time = Int64(dice.number(isBlocking ? 0...2 : 0...40))
                    work.append((question.id, question.asker.rawValue, start + time))
                case .fail(let asker, let reason): failed[asker.rawValue] = reason
                default: break
                }
            }
        }

        mutating func die(_ end: RouterEnd) {
            deaths += 1
            work = []
            desk.routers.died(r(running), end, now: desk.now)
            act()
        }

        /// One millisecond.
        mutating func step() {
            desk.pass(1)
            act()
            if let at = startsAt, at <= desk.now {
                startsAt = nil
                desk.routers.greeted(r(running), RouterAbilities(), now: desk.now)
                act()
            }
            guard startsAt == nil else { return }
            while let index = work.firstIndex(where: { $0.doneAt <= desk.now }) {
                let item = work.remove(at: index)
                if poisons.contains(item.asker) { return die(.exited(1)) }
                desk.settle(r(running), item.id)
                answered.insert(item.asker)
                if let since = waits[item.asker] { waits[item.asker] = desk.now - since }
                act()
            }
            if kills > 0, !work.isEmpty, dice.chance(1, 300) {
                kills -= 1
                die(.signalled(9))
            }
        }
    }

    @Test(
        "among hundreds of innocents the guilty are found within a few restarts, and all innocents are answered",
        arguments: [(1, 0, true), (1, 0, false), (3, 0, true), (3, 10, false), (20, 5, true), (0, 40, false)])
    func crowd(poisons: Int, kills: Int, isBlocking: Bool) {
        for seed in UInt64(0)..<20 {
            var dice = Dice(seed: seed)
            let guilty = Set((0..<poisons).map { _ in UInt64(dice.number(1...400)) })
            var world = World(
                dice: dice, isBlocking: isBlocking, desk: .ready { $0.questionsMax = 1000 }, running: 1,
                poisons: guilty, kills: kills)
            var asker: UInt64 = 0
            // Two hundred at once, then a thousand that come one by one.
            for _ in 0..<200 {
                asker += 1
                world.desk.ask(asker)
                world.waits[asker] = world.desk.now
            }
            var time = 0
            while time < 60_000, asker < 1200 || world.desk.routers.openCount > 0 {
                time += 1
                if asker < 1200, time % 3 == 0 {
                    asker += 1
                    world.desk.ask(asker)
                    world.waits[asker] = world.desk.now
                }
                world.step()
            }
            #expect(world.desk.routers.openCount == 0, "seed \(seed)")
            #expect(world.failed.keys.sorted() == guilty.sorted(), "seed \(seed): \(world.failed)")
            #expect(world.failed.values.allSatisfy { $0 == .poison })
            #expect(world.answered.count == 1200 - guilty.count)
            let died = world.deaths - (kills - world.kills)
            #expect(died <= 5 * guilty.count, "seed \(seed): \(died) deaths of \(guilty.count)")
            let longest = world.answered.compactMap { world.waits[$0] }.max() ?? 0
            #expect(longest < 15_000, "seed \(seed): an innocent waited \(longest) ms")
        }
    }
}
