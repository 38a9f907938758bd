// The rules of `Routers` about questions, one test each. Nothing here waits: time is a number that is set.

import Config
import Testing

@testable import Proxy

/// A worker as `Routers` sees it: a clock that is set, and everything that was to be done.
final class Desk {
    var routers: Routers
    var now: Int64 = 1000
    /// Everything but notes, in order; emptied by `take`.
    private var actions: [RouterAction] = []
    private var notes: [RouterNote] = []

    init(generation: Int = 1, _ change: (inout RouterLimits) -> Void = { _ in }) {
        var limits = RouterLimits()
        change(&limits)
        routers = Routers(limits: limits, generation: generation)
    }

    /// A desk with a router that has been greeted.
    static func ready(
        _ abilities: RouterAbilities = RouterAbilities(), _ change: (inout RouterLimits) -> Void = { _ in }
    ) -> Desk {
        let desk = Desk(change)
        desk.routers.start(now: desk.now)
        desk.routers.greeted(r(1), abilities, now: desk.now)
        _ = desk.take()
        return desk
    }

    private func collect() {
        while let action = routers.nextAction(now: now) {
            if case .note(let note) = action { notes.append(note) } else { actions.append(action) }
        }
    }

    func take() -> [RouterAction] {
        collect()
        defer { actions = [] }
        return actions
    }

    func takeNotes() -> [RouterNote] {
        collect()
        defer { notes = [] }
        return notes
    }

    /// Lets time pass, as a loop would: stopping at every deadline.
    func pass(_ milliseconds: Int64) {
        let end = now + milliseconds
        while let deadline = routers.nextDeadline, deadline <= end {
            now = max(now, deadline)
            routers.advance(now: now)
            collect()
        }
        now = end
    }

    @discardableResult
    func ask(_ asker: UInt64, _ kind: QuestionKind = .proxy) -> QuestionToken {
        guard case .accepted(let token) = routers.ask(Asker(rawValue: asker), kind, now: now) else {
            Issue.record("the question was refused")
            return routers.questions.token(of: 0)
        }
        return token
    }

    var isFull: Bool { routers.isFull }

    func refusal(_ asker: Asker, _ kind: QuestionKind) -> QuestionFailure? {
        if case .refused(let reason) = routers.ask(asker, kind, now: now) { reason } else { nil }
    }

    func held(_ router: RouterID, _ id: UInt64) -> AnsweredQuestion? {
        routers.answered(router, id: id, now: now)
    }

    func answer(_ router: RouterID, _ id: UInt64) -> UInt64? {
        routers.answered(router, id: id, now: now)?.asker.rawValue
    }

    /// An answer whose verdict is carried out at once.
    @discardableResult
    func settle(_ router: RouterID, _ id: UInt64) -> UInt64? {
        guard let held = routers.answered(router, id: id, now: now) else { return nil }
        routers.applied(held.token, now: now)
        return held.asker.rawValue
    }
}

func r(_ number: UInt64) -> RouterID { RouterID(number: number) }
func a(_ number: UInt64) -> Asker { Asker(rawValue: number) }
func send(
    _ asker: UInt64, _ id: UInt64, to router: UInt64, replay: UInt8 = 0, kind: QuestionKind = .proxy
) -> RouterAction {
    .send(
        QuestionToSend(
            router: r(router), id: id, asker: a(asker), kind: kind, replay: replay, deadlineMilliseconds: 5000))
}
func spawn(_ router: UInt64, generation: Int = 1) -> RouterAction {
    .spawn(r(router), .process, generation: generation)
}

@Suite("Routers: questions")
struct RoutersQuestionTests {
    @Test("the first router is started, and its greeting makes the worker ready")
    func firstStart() {
        let desk = Desk()
        desk.routers.start(now: desk.now)
        #expect(desk.take() == [spawn(1)])
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        #expect(desk.take() == [.ready])
        #expect(desk.takeNotes() == [.started(r(1), generation: 1), .greeted(r(1), maxInFlight: 64)])
    }

    @Test("a question is put to the router, answered, and forgotten when its verdict has been applied")
    func oneQuestion() throws {
        let desk = Desk.ready()
        let token = desk.ask(7)
        #expect(desk.take() == [send(7, 2, to: 1)])
        let held = try #require(desk.held(r(1), 2))
        #expect(held == AnsweredQuestion(token: token, asker: a(7), kind: .proxy))
        #expect(desk.routers.openCount == 1)
        desk.routers.applied(token, now: desk.now)
        #expect(desk.routers.openCount == 0)
        desk.routers.applied(token, now: desk.now)
        #expect(desk.routers.openCount == 0)
        #expect(desk.routers.nextDeadline == nil)
    }

    @Test("ids rise and are never used twice on one router's socket")
    func ids() {
        let desk = Desk.ready()
        desk.ask(1)
        desk.ask(2)
        #expect(desk.take() == [send(1, 2, to: 1), send(2, 3, to: 1)])
        #expect(desk.settle(r(1), 3) == 2)
        #expect(desk.settle(r(1), 2) == 1)
        desk.ask(1)
        #expect(desk.take() == [send(1, 4, to: 1)])
    }

    @Test("unknown, duplicate and late answers are counted and dropped")
    func strayAnswers() {
        let desk = Desk.ready(RouterAbilities(wantsCancel: true))
        desk.ask(1)
        let left = desk.ask(2)
        _ = desk.take()
        #expect(desk.settle(r(1), 2) == 1)
        #expect(desk.answer(r(1), 2) == nil)
        desk.routers.withdraw(left, now: desk.now)
        #expect(desk.answer(r(1), 3) == nil)
        #expect(desk.answer(r(9), 3) == nil)
        #expect(desk.routers.counters.lateAnswers == 3)
        for id in [0, 1, 4, UInt64.max] { #expect(desk.answer(r(1), id) == nil) }
        #expect(desk.routers.counters.unknownAnswers == 4)
    }

    @Test("beyond max_in_flight questions wait for an answer, in order")
    func maxInFlight() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1))
        for asker in 1...3 { desk.ask(UInt64(asker)) }
        #expect(desk.take() == [send(1, 2, to: 1)])
        desk.settle(r(1), 2)
        #expect(desk.take() == [send(2, 3, to: 1)])
        desk.settle(r(1), 3)
        #expect(desk.take() == [send(3, 4, to: 1)])
    }

    @Test("a router's own maximum is brought within reason")
    func absurdMaximum() {
        for claimed in [Int.min, -1, 0] {
            let desk = Desk.ready(RouterAbilities(maxInFlight: claimed))
            desk.ask(1)
            desk.ask(2)
            #expect(desk.take() == [send(1, 2, to: 1)])
        }
        let desk = Desk.ready(RouterAbilities(maxInFlight: .max)) { $0.questionsMax = 3 }
        for asker in 1...3 { desk.ask(UInt64(asker)) }
        #expect(desk.take().count == 3)
    }

    @Test("a full queue says so until a quarter of it is free, and beyond the last place questions are refused")
    func fullQueue() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1)) {
            $0.waitingMax = 4
            $0.questionsMax = 6
        }
        for asker in 1...4 { desk.ask(UInt64(asker)) }
        _ = desk.take()
        #expect(!desk.isFull)
        desk.ask(5)
        #expect(desk.isFull)
        desk.ask(6)
        #expect(desk.refusal(a(7), .proxy) == .overloaded)
        desk.settle(r(1), 2)
        _ = desk.take()
        #expect(desk.isFull)
        desk.settle(r(1), 3)
        _ = desk.take()
        #expect(!desk.isFull)
    }

    @Test("where others take clients as well the queue is full sooner, and never later")
    func sharedQueue() {
        for (own, expected) in [(1024, Limits.waitingQuestionsSharedMax), (4, 4)] {
            let desk = Desk.ready(RouterAbilities(maxInFlight: 1)) { $0.waitingMax = own }
            desk.routers.shareClients()
            desk.ask(1)
            _ = desk.take()
            for asker in 1..<UInt64(expected) { desk.ask(asker + 1) }
            #expect(!desk.isFull)
            desk.ask(1000)
            #expect(desk.isFull)
        }
    }

    @Test("a question that waits its time out behind others fails as overload, without a router as that")
    func waitingTimeout() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1)) { $0.waitingTimeoutMilliseconds = 4000 }
        let asked = desk.ask(1)
        let waiting = desk.ask(2)
        // Nobody has had a chance yet.
        #expect(desk.routers.wait(waiting, now: desk.now) == nil)
        _ = desk.take()
        desk.pass(1)
        #expect(desk.routers.wait(asked, now: desk.now) == nil)
        #expect(desk.routers.wait(waiting, now: desk.now) == .overloaded)
        desk.pass(3999)
        #expect(desk.take() == [.fail(a(2), .overloaded)])

        let alone = Desk { $0.waitingTimeoutMilliseconds = 4000 }
        alone.routers.start(now: alone.now)
        let forNobody = alone.ask(1)
        alone.pass(1)
        #expect(alone.routers.wait(forNobody, now: alone.now) == .noRouter)
        alone.pass(3999)
        #expect(alone.take() == [spawn(1), .fail(a(1), .noRouter)])
    }

    @Test("a question that waits while four routers wedge one after the other is put to the fifth")
    func wedgesInARow() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1))
        for asker in 1...5 as ClosedRange<UInt64> { desk.ask(asker) }
        for router in 2...5 as ClosedRange<UInt64> {
            _ = desk.take()
            // Its time, and the pause before the next start.
            desk.pass(6000)
            #expect(desk.take().contains(spawn(router)))
            desk.routers.greeted(r(router), RouterAbilities(maxInFlight: 1), now: desk.now)
        }
        #expect(desk.take() == [send(5, 2, to: 5)])
    }

    @Test("with somewhere else to go, nobody waits longer for a router than it may be away")
    func absence() {
        let desk = Desk { ($0.absenceMilliseconds, $0.mayBeAbsent) = (2000, true) }
        desk.routers.start(now: desk.now)
        desk.ask(1)
        desk.pass(1000)
        #expect(desk.take() == [spawn(1), .ready])
        #expect(desk.routers.nextDeadline == desk.now + 1000)
        desk.pass(1000)
        #expect(desk.take() == [.fail(a(1), .noRouter)])
        #expect(desk.refusal(a(2), .proxy) == .noRouter)
        // One that came and died again has been there: the time begins anew.
        desk.routers.greeted(r(1), RouterAbilities(), now: desk.now)
        _ = desk.take()
        desk.ask(3)
        #expect(desk.take() == [send(3, 2, to: 1)])
        desk.pass(5)
        desk.routers.died(r(1), .exited(1), now: desk.now)
        desk.pass(1999)
        let actions = desk.take()
        #expect(!actions.contains(.fail(a(3), .noRouter)))
        desk.pass(1)
        #expect(desk.take() == [.fail(a(3), .noRouter)])
    }

    @Test("a question that waited has the router's whole time once it is put")
    func freshDeadline() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1))
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.pass(4900)
        desk.settle(r(1), 2)
        #expect(desk.take() == [send(2, 3, to: 1)])
        desk.pass(4900)
        #expect(desk.take() == [])
        #expect(desk.settle(r(1), 3) == 2)
    }

    @Test("a question withdrawn before it is sent never leaves")
    func withdrawnAtOnce() {
        let desk = Desk.ready(RouterAbilities(wantsCancel: true))
        let token = desk.ask(1)
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [])
        #expect(desk.routers.counters.sent == 0)
    }

    @Test("a withdrawn question is cancelled where that is wanted, and its place is free at once")
    func cancel() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1, wantsCancel: true))
        let token = desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [.cancel(r(1), id: 2, a(1)), send(2, 3, to: 1)])
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.routers.openCount == 1)
    }

    @Test("a router that cannot be told keeps a withdrawn question's place until it answers")
    func abandoned() {
        let desk = Desk.ready(RouterAbilities(maxInFlight: 1))
        let token = desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [])
        #expect(desk.answer(r(1), 2) == nil)
        #expect(desk.routers.counters.lateAnswers == 1)
        #expect(desk.take() == [send(2, 3, to: 1)])
    }

    @Test("on a router that answers others a deadline costs that question alone")
    func deadlineAlone() {
        let desk = Desk.ready(RouterAbilities(wantsCancel: true))
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.pass(10)
        desk.settle(r(1), 3)
        desk.pass(5000)
        #expect(desk.take() == [.cancel(r(1), id: 2, a(1)), .fail(a(1), .deadline)])
        #expect(desk.answer(r(1), 2) == nil)
        #expect(desk.routers.counters.lateAnswers == 1)
        desk.ask(3)
        #expect(desk.take() == [send(3, 4, to: 1)])
    }

    @Test("a failure that was not yet told is not told to one who has left")
    func withdrawnAfterFailure() {
        let desk = Desk.ready()
        let token = desk.ask(1)
        _ = desk.take()
        desk.routers.heard(r(1), now: desk.now)
        desk.now += 5000
        desk.routers.advance(now: desk.now)
        #expect(desk.routers.openCount == 0)
        desk.routers.withdraw(token, now: desk.now)
        #expect(desk.take() == [])
    }

    @Test("progress moves one question's deadline, up to the maximum, and never back")
    func progress() {
        let desk = Desk.ready { $0.progressMaxMilliseconds = 12_000 }
        desk.ask(1)
        desk.ask(2)
        _ = desk.take()
        desk.routers.progressed(r(1), id: 2, milliseconds: 10, now: desk.now)
        desk.pass(4000)
        desk.routers.progressed(r(1), id: 2, milliseconds: 4000, now: desk.now)
        desk.pass(1000)
        #expect(desk.take() == [.fail(a(2), .deadline)])
        desk.pass(2000)
        desk.routers.progressed(r(1), id: 2, milliseconds: .max, now: desk.now)
        desk.pass(4999)
        #expect(desk.take() == [])
        desk.pass(1)
        #expect(desk.take() == [.fail(a(1), .deadline)])
        desk.routers.progressed(r(1), id: 2, milliseconds: 1000, now: desk.now)
        desk.routers.progressed(r(1), id: 77, milliseconds: .min, now: desk.now)
        #expect(desk.routers.nextDeadline == nil)
    }

    @Test("a router that reads nothing gets nothing more until it does")
    func blocked() {
        let desk = Desk.ready()
        desk.ask(1)
        _ = desk.take()
        desk.routers.blocked(r(1), true, now: desk.now)
        desk.ask(2)
        #expect(desk.take() == [])
        desk.routers.blocked(r(1), false, now: desk.now)
        #expect(desk.take() == [send(2, 3, to: 1)])
    }

    @Test("proxy_error is put only to a router that implements it, and the asker is told at once otherwise")
    func proxyError() {
        let able = Desk.ready(RouterAbilities(answersProxyError: true))
        able.ask(1, .proxyError)
        #expect(able.take() == [send(1, 2, to: 1, kind: .proxyError)])

        let unable = Desk.ready()
        #expect(unable.refusal(a(1), .proxyError) == .notImplemented)

        let early = Desk()
        early.routers.start(now: early.now)
        early.ask(1, .proxyError)
        early.ask(2)
        early.routers.greeted(r(1), RouterAbilities(), now: early.now)
        #expect(early.take() == [spawn(1), .ready, .fail(a(1), .notImplemented), send(2, 2, to: 1)])
    }
}

@Suite("Routers: the table")
struct OpenQuestionsTests {
    @Test("the index finds what it holds and nothing else, whatever was taken out before")
    func index() {
        for seed in UInt64(0)..<100 {
            var dice = Dice(seed: seed)
            let capacity = dice.number(1...40)
            var index = QuestionIndex(capacity: capacity)
            var model: [(id: UInt64, slot: Int32)] = []
            var next: UInt64 = 2
            for _ in 0..<400 {
                if model.count < capacity, dice.chance(1, 2) {
                    next += UInt64(dice.number(1...3))
                    model.append((next, Int32(dice.number(0...99))))
                    index.insert(next, model[model.count - 1].slot)
                } else if !model.isEmpty {
                    let (id, slot) = model.remove(at: dice.number(0...(model.count - 1)))
                    #expect(index.remove(id) == slot)
                    #expect(index.remove(id) == nil)
                }
                #expect(model.allSatisfy { index.find($0.id) == $0.slot })
            }
            #expect(index.find(0) == nil)
            #expect(index.remove(next + 1) == nil)
        }
    }

    @Test("a token of a question that is over names nothing, though its slot is in use again")
    func staleTokens() {
        var questions = OpenQuestions(role: .main)
        let slot = questions.allocate()
        questions[slot].phase = .waiting
        let token = questions.token(of: slot)
        #expect(questions.slot(of: token) == slot)
        questions.free(slot)
        #expect(questions.slot(of: token) == nil)
        let again = questions.allocate()
        questions[again].phase = .waiting
        #expect(again == slot)
        #expect(questions.slot(of: token) == nil)
    }
}

/// What the tests of `Routers` throw.
struct Dice: RandomNumberGenerator {
    private var generator: SeededGenerator

    init(seed: UInt64) { generator = SeededGenerator(seed: seed &* 0x2545_f491_4f6c_dd1d &+ 1) }

    mutating func next() -> UInt64 { generator.next() }
    mutating func number(_ range: ClosedRange<Int>) -> Int { Int.random(in: range, using: &self) }
    /// True so many times out of so many.
    mutating func chance(_ times: Int, _ of: Int) -> Bool { number(1...of) <= times }
}
