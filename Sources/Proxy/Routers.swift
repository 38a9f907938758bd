// Everything a worker decides about routers and open questions: which router is asked what and when, when a router is
// given up and replaced, and how every question comes to exactly one end. Pure: the worker reports what happened and
// performs what `nextAction` hands out; there is no I/O and no clock in here. `Routers+Replacing.swift` has the lives of
// routers, `OpenQuestions.swift` the table.
//
// The life of a question:
//
//     ask → waiting → (send) asked → answered → applied
//             ↑          │               │
//             └──────────┴───────────────┘  its router died: it is a suspect now (`Routers+Trials.swift`)
//
// and out of every state: withdrawn, or failed. Nothing is sent before `nextAction` is called, so what is asked in one
// round of the loop leaves in one write, and what is withdrawn in the same round never leaves.

import Config
import DequeModule

/// All routers of one worker and all questions that are not over. Instants are milliseconds of the monotonic clock.
///
/// The worker calls `nextAction` until it is nil after each batch of events, and `advance` once per round, after the
/// round's events: a router whose answer has been read is not silent.
struct Routers: ~Copyable {
    enum Phase: Equatable {
        /// `start` has not been called.
        case idle
        case running
        /// No router is started unless a question is open. → leaving, with the end of the last question
        case draining
        /// No question is open and none is taken; the routers are on their way out. → ended, with the release of the last one
        case leaving
        /// No router is left, or none ever came up.
        case ended
    }

    private(set) var limits: RouterLimits
    var phase = Phase.idle
    var counters = RouterCounters()
    /// Questions that `ask` took and that have no end yet.
    var openCount = 0

    var questions: OpenQuestions
    /// Those in the two queues; `isFull` follows it.
    private(set) var waitingCount = 0
    /// Whether the worker should accept no more. It lasts until a quarter of the queue is free, so that it does not flutter.
    private(set) var isFull = false
    /// Not yet open at any router's death; those that were, the suspects; to be told of their failure.
    let waiting: QuestionList
    let suspects: QuestionList
    let failed: QuestionList
    /// Whose turn it is, while there are suspects.
    var turn = Turn.others(until: nil)
    /// Questions that are no suspects and were put since the last trial.
    var othersSent = 0
    /// Counts the trials; `triedOpen` are the questions of this one that are still open.
    var trial: UInt32 = 0
    var triedOpen = 0

    var lives: ContiguousArray<RouterLife> = []
    var seats: ContiguousArray<RouterSeat>
    var lastRouter: UInt64
    var generation: Int
    /// What the last reload asked for.
    var wantedGeneration = 0
    /// The seat whose router is being replaced by a reload: one after the other.
    var reloadSeat: Int?
    /// Another reload was asked for before this one was over: the files may have changed since.
    var reloadAgain = false
    /// When a router answered a question at last.
    var answeredAt: Int64?
    /// A router has answered `hello` at least once.
    var wasReady = false
    /// Since when nobody is there to decide.
    var nobodySince: Int64?
    var actions = Deque<RouterAction>()

    /// `generation` is that of the first router: a worker that is started after a reload begins with a later one.
    init(limits: RouterLimits, generation: Int = 1, role: RouterRole = .main) {
        self.limits = limits
        questions = OpenQuestions(role: role)
        lastRouter = RouterID.base(role)
        self.generation = generation
        seats = ContiguousArray(repeating: RouterSeat(), count: max(1, limits.routers))
        waiting = questions.makeList()
        suspects = questions.makeList()
        failed = questions.makeList()
    }

    // MARK: Asking

    enum Asked: Equatable {
        /// Held: keep the token until the question is over.
        case accepted(QuestionToken)
        /// Not held; nothing more will be heard of it.
        case refused(QuestionFailure)
    }

    /// Takes a question. It ends with `answered` and then `applied`, with the action `fail`, or with `withdraw`.
    mutating func ask(_ asker: Asker, _ kind: QuestionKind, now: Int64) -> Asked {
        if phase == .leaving || phase == .ended || isDeserted(now) { return .refused(.noRouter) }
        if openCount >= limits.questionsMax { return .refused(.overloaded) }
        if kind == .proxyError, let holder = anyHolder, let position = position(of: holder),
            !lives[position].abilities.answersProxyError
        {
            return .refused(.notImplemented)
        }
        counters.asked &+= 1
        openCount += 1
        let slot = questions.allocate()
        questions[slot].asker = asker
        questions[slot].kind = kind
        enqueue(slot, in: waiting, now)
        return .accepted(questions.token(of: slot))
    }

    /// The client left, or its time is up: no answer is wanted any more. A token whose question is over does nothing.
    mutating func withdraw(_ token: QuestionToken, now: Int64) {
        guard let slot = questions.slot(of: token) else { return }
        switch questions[slot].phase {
        case .free, .abandoned: return
        case .waiting:
            dequeue(slot)
            questions.free(slot)
        case .asked: takeBack(slot)
        case .answered: forgetAnswered(slot)
        case .failed:
            // It is over already, its asker has only not been told yet: now it need not be.
            questions.unlink(slot)
            questions.free(slot)
            return
        }
        counters.withdrawn &+= 1
        openCount -= 1
        settle(now)
    }

    /// The verdict has been carried out: only now is the question forgotten.
    mutating func applied(_ token: QuestionToken, now: Int64) {
        guard let slot = questions.slot(of: token), questions[slot].phase == .answered else { return }
        forgetAnswered(slot)
        openCount -= 1
        settle(now)
    }

    /// The verdict could not be carried out because its router died too early (with a descriptor it offered): the question
    /// counts as open at that death.
    mutating func notApplied(_ token: QuestionToken, now: Int64) {
        guard let slot = questions.slot(of: token), questions[slot].phase == .answered else { return }
        if let position = position(of: questions[slot].router) { lives[position].unapplied -= 1 }
        putAgain(slot, now)
        settle(now)
    }

    /// Why a question would fail that waits, if it does. One that was asked in this very round has not been put to a router for
    /// no reason but that.
    func wait(_ token: QuestionToken, now: Int64) -> QuestionFailure? {
        guard let slot = questions.slot(of: token), questions[slot].phase == .waiting,
            questions[slot].deadline &- limits.waitingTimeoutMilliseconds < now
        else { return nil }
        return whatIsMissing
    }

    /// Whether a question that is asked now would be put to a router at once.
    var wouldAskAtOnce: Bool {
        openCount < limits.questionsMax && waitingCount == 0 && leastBusy(except: turn.router) != nil
    }

    /// There are others whom clients may go to: fewer are kept waiting here, above all behind a router that is stuck.
    mutating func shareClients() {
        limits.waitingMax = min(limits.waitingMax, Limits.waitingQuestionsSharedMax)
    }

    // MARK: What comes from a router

    /// An answer has come, result or error. Nil: nobody waits for it, and it was counted.
    mutating func answered(_ router: RouterID, id: UInt64, now: Int64) -> AnsweredQuestion? {
        guard let position = position(of: router) else {
            counters.lateAnswers &+= 1
            return nil
        }
        lives[position].heard(now)
        guard let slot = lives[position].index.remove(id) else {
            if (RouterLife.firstQuestionID..<lives[position].nextQuestionID).contains(id) {
                counters.lateAnswers &+= 1
            } else {
                counters.unknownAnswers &+= 1
            }
            return nil
        }
        questions.unlink(slot)
        lives[position].inFlight -= 1
        leaveTrial(slot)
        guard questions[slot].phase == .asked else {
            counters.lateAnswers &+= 1
            lives[position].abandoned -= 1
            questions.free(slot)
            return nil
        }
        questions[slot].phase = .answered
        lives[position].unapplied += 1
        counters.answered &+= 1
        answeredAt = now
        let seat = lives[position].seat
        if seats[seat].holder == router {
            seats[seat].failures = 0
            if seats[seat].proving != nil { proved(seat) }
        }
        return AnsweredQuestion(
            token: questions.token(of: slot), asker: questions[slot].asker, kind: questions[slot].kind)
    }

    /// The router needs so much more time for a question, counted from now. Never less than it had, never more than the maximum.
    mutating func progressed(_ router: RouterID, id: UInt64, milliseconds: Int64, now: Int64) {
        guard let position = position(of: router) else { return }
        lives[position].heard(now)
        guard let slot = lives[position].index.find(id), questions[slot].phase == .asked else { return }
        let wished = now &+ max(0, min(milliseconds, limits.progressMaxMilliseconds))
        let latest = questions[slot].askedAt &+ limits.progressMaxMilliseconds
        questions[slot].deadline = max(questions[slot].deadline, min(wished, latest))
        questions.unlink(slot)
        questions.insertByDeadline(slot, into: lives[position].extended)
    }

    /// Bytes came from the router, whatever they say.
    mutating func heard(_ router: RouterID, now: Int64) {
        guard let position = position(of: router) else { return }
        lives[position].heard(now)
    }

    /// The router does not read what we write (or does again): it is put no further question meanwhile.
    mutating func blocked(_ router: RouterID, _ isBlocked: Bool, now: Int64) {
        guard let position = position(of: router) else { return }
        if !isBlocked {
            lives[position].blocked = nil
        } else if lives[position].blocked == nil {
            lives[position].blocked = RouterLife.Blocked(
                deadline: now &+ limits.routerTimeoutMilliseconds, heardBefore: lives[position].heard)
        }
    }

    // MARK: What the worker has to do

    /// The next thing to do, nil when there is nothing. Questions are put to a router here.
    mutating func nextAction(now: Int64) -> RouterAction? {
        if let action = actions.popFirst() { return action }
        while true {
            if let slot = questions.first(of: failed), case .failed(let reason) = questions[slot].phase {
                let asker = questions[slot].asker
                questions.unlink(slot)
                questions.free(slot)
                return .fail(asker, reason)
            }
            guard let (slot, position) = nextToPut(now) else { break }
            dequeue(slot)
            if questions[slot].kind == .proxyError, !lives[position].abilities.answersProxyError {
                leaveTrial(slot)
                fail(slot, .notImplemented)
                settle(now)
                continue
            }
            return .send(put(slot, to: position, now))
        }
        return actions.popFirst()
    }

    /// When `advance` has to be called at the latest; nil: never.
    var nextDeadline: Int64? {
        var earliest = Int64.max
        consider(waiting, &earliest)
        consider(suspects, &earliest)
        if waitingCount > 0, let nobodySince, let absence = limits.absenceMilliseconds {
            earliest = min(earliest, nobodySince &+ absence)
        }
        if let turnEnds { earliest = min(earliest, turnEnds) }
        for position in lives.indices {
            consider(lives[position].asked, &earliest)
            consider(lives[position].extended, &earliest)
            if let blocked = lives[position].blocked { earliest = min(earliest, blocked.deadline) }
            if let deadline = lives[position].phase.deadline { earliest = min(earliest, deadline) }
        }
        for seat in seats {
            // With all places taken it is a departure, not the time, that lets the next router start.
            if let restartAt = seat.restartAt, lives.count < limits.livesMax { earliest = min(earliest, restartAt) }
            if let proving = seat.proving, let holder = seat.holder, let position = position(of: holder) {
                earliest = min(earliest, lives[position].isNeeded ? proving.latest : proving.until)
            }
        }
        return earliest == Int64.max ? nil : earliest
    }

    /// Ends what has run out of time.
    mutating func advance(now: Int64) {
        expireWaiting(suspects, now)
        expireWaiting(waiting, now)
        var position = 0
        while position < lives.count {
            let router = lives[position].id
            advanceLife(router, now)
            // It may have been released meanwhile; others come behind it, never before.
            if position < lives.count, lives[position].id == router { position += 1 }
        }
        settle(now)
    }

    private func consider(_ list: QuestionList, _ earliest: inout Int64) {
        if let slot = questions.first(of: list) { earliest = min(earliest, questions[slot].deadline) }
    }

    // MARK: Questions

    private mutating func expireWaiting(_ list: QuestionList, _ now: Int64) {
        while let slot = questions.first(of: list), questions[slot].deadline <= now { failWaiting(slot) }
    }

    /// Nobody has been there to decide for too long to wait for somebody.
    func isDeserted(_ now: Int64) -> Bool {
        guard let nobodySince, let absence = limits.absenceMilliseconds else { return false }
        return now &- nobodySince >= absence
    }

    /// Ends a question that no router had room for.
    mutating func failWaiting(_ slot: Int32) {
        dequeue(slot)
        fail(slot, whatIsMissing)
    }

    /// Ends all of them, suspects first, as when their time is up.
    mutating func failAllWaiting() {
        for list in [suspects, waiting] { while let slot = questions.first(of: list) { failWaiting(slot) } }
    }

    private var whatIsMissing: QuestionFailure { anyHolder == nil ? .noRouter : .overloaded }

    mutating func enqueue(_ slot: Int32, in list: QuestionList, _ now: Int64) {
        questions[slot].phase = .waiting
        questions[slot].deadline = now &+ limits.waitingTimeoutMilliseconds
        questions.append(slot, to: list)
        waitingCount += 1
        if waitingCount >= limits.waitingMax { isFull = true }
    }

    private mutating func dequeue(_ slot: Int32) {
        questions.unlink(slot)
        waitingCount -= 1
        if isFull, waitingCount <= limits.waitingMax - (limits.waitingMax + 3) / 4 { isFull = false }
    }

    private mutating func put(_ slot: Int32, to position: Int, _ now: Int64) -> QuestionToSend {
        let id = lives[position].nextQuestionID
        lives[position].nextQuestionID = id &+ 1
        lives[position].index.insert(id, slot)
        lives[position].inFlight += 1
        questions[slot].phase = .asked
        questions[slot].router = lives[position].id
        questions[slot].id = id
        questions[slot].askedAt = now
        questions[slot].deadline = now &+ limits.routerTimeoutMilliseconds
        questions[slot].heardBefore = lives[position].heard
        questions.append(slot, to: lives[position].asked)
        counters.sent &+= 1
        return QuestionToSend(
            router: lives[position].id, id: id, asker: questions[slot].asker, kind: questions[slot].kind,
            replay: questions[slot].replay, deadlineMilliseconds: limits.routerTimeoutMilliseconds)
    }

    /// Withdraws a question from its router. One that cannot be told goes on working at it, so there it keeps its place until it
    /// answers or its time is up: a script that takes one line after the other must not find a second one waiting.
    private mutating func takeBack(_ slot: Int32) {
        guard let position = position(of: questions[slot].router) else {
            preconditionFailure("a question is with a router that is gone")
        }
        guard lives[position].abilities.wantsCancel else {
            questions[slot].phase = .abandoned
            lives[position].abandoned += 1
            return
        }
        actions.append(.cancel(lives[position].id, id: questions[slot].id, questions[slot].asker))
        unlinkAsked(slot, position)
        questions.free(slot)
    }

    /// Takes a question away from its router, here in the table.
    mutating func unlinkAsked(_ slot: Int32, _ position: Int) {
        lives[position].index.remove(questions[slot].id)
        lives[position].inFlight -= 1
        if questions[slot].phase == .abandoned { lives[position].abandoned -= 1 }
        questions.unlink(slot)
        leaveTrial(slot)
    }

    /// Ends a question that is in no list; its asker hears of it.
    mutating func fail(_ slot: Int32, _ reason: QuestionFailure) {
        questions[slot].phase = .failed(reason)
        questions.append(slot, to: failed)
        counters.failed &+= 1
        openCount -= 1
    }

    private mutating func forgetAnswered(_ slot: Int32) {
        // The router may be gone by now: an answer outlives it.
        if let position = position(of: questions[slot].router) { lives[position].unapplied -= 1 }
        questions.free(slot)
    }
}
