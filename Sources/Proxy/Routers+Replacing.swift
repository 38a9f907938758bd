// The lives of routers: started, greeted, deciding, retired, replaced; which one decides, and when the next one is tried.
//
//     starting → deciding ⇄ standing by → retiring → leaving → (release)
//         │          └────────────┴───────────┴─────────↑
//         └────────── failed ───────────────────────────┘

/// One router from its spawn to its release.
struct RouterLife {
    enum Phase: Equatable {
        /// Spawned; `hello` is not answered. `closed` once its socket is: then only its exit status is waited for.
        case starting(deadline: Int64, closed: Bool)
        /// New questions go to it.
        case deciding
        /// A newer generation decides and has yet to prove itself. It finishes what it has, and decides again if that one dies.
        case standingBy
        /// Replaced by a newer generation: it finishes what it has.
        case retiring
        /// It has nothing left to do here, or is not trusted any more.
        case leaving(Departure, deadline: Int64)

        var deadline: Int64? {
            switch self {
            case .starting(let deadline, _), .leaving(_, let deadline): deadline
            case .deciding, .standingBy, .retiring: nil
            }
        }
    }

    /// What has been done to make it go.
    enum Departure { case told, terminated, killed }

    /// Since when it has not read what we write.
    struct Blocked {
        var deadline: Int64
        let heardBefore: UInt64
    }

    /// The id 1 is `hello`.
    static let firstQuestionID: UInt64 = 2

    let id: RouterID
    let kind: RouterKind
    let generation: Int
    /// The place of its seat.
    let seat: Int
    var phase: Phase
    var abilities = RouterAbilities()
    var nextQuestionID = firstQuestionID
    /// Rises whenever something came from it; when that was the last time.
    var heard: UInt64 = 0
    var heardAt: Int64
    var blocked: Blocked?
    /// Questions it has not answered, the abandoned ones among them; answers that are being carried out.
    var inFlight = 0
    var abandoned = 0
    var unapplied = 0
    /// Streams that it rewrites, or is to.
    var streams = 0
    /// Its questions by id; in the order in which their time ends, those it asked more time for apart.
    var index = QuestionIndex(capacity: 0)
    let asked: QuestionList
    let extended: QuestionList

    var hasRoom: Bool { inFlight < abilities.maxInFlight && blocked == nil && phase == .deciding }
    /// Something came from it.
    mutating func heard(_ now: Int64) {
        heard &+= 1
        heardAt = now
    }

    /// Something of it is still wanted.
    var isNeeded: Bool { inFlight > abandoned || unapplied > 0 }
}

/// The place of a router that decides: who has it, who is to have it, and when the next one is tried.
struct RouterSeat {
    /// Until when a new generation has to prove itself: without an open question, and with one.
    struct Proving {
        let until: Int64
        let latest: Int64
    }

    /// Questions go to it.
    var holder: RouterID?
    /// Started, not greeted yet.
    var coming: RouterID?
    /// The router before the holder, while the holder has yet to prove itself.
    var standby: RouterID?
    /// The holder is the new generation of a reload and has not proved itself yet.
    var proving: Proving?
    /// The coming one is the new generation of a reload.
    var isReload = false
    /// When to start the next one, if none is coming.
    var restartAt: Int64?
    /// Deaths and failed starts since the last answer.
    var failures = 0
}

extension Routers {
    /// A router that decides, for what any of them may be told.
    var anyHolder: RouterID? { seats.lazy.compactMap { $0.holder }.first }

    // MARK: What the worker asks for

    /// Starts the first routers.
    mutating func start(now: Int64) {
        guard phase == .idle else { return }
        phase = .running
        nobodySince = now
        for seat in seats.indices { seats[seat].restartAt = now }
        startDueRouters(now)
        guard limits.mayBeAbsent else { return }
        wasReady = true
        actions.append(.ready)
    }

    /// HUP: starts a new generation, which takes over when it has answered `hello`; several routers one after the other.
    /// Answered by `reloaded` once they have proved themselves, or by `reloadFailed`; reloads asked for while one is under way
    /// are answered together by the next one. `generation` is the new one's number, if it is higher than ours; without it we
    /// count on.
    mutating func reload(generation wanted: Int? = nil, now: Int64) {
        guard phase == .running else { return }
        if let wanted { wantedGeneration = wanted }
        reloadAgain = true
        goOnReloading(now)
    }

    /// Does the next step of a reload, as soon as it can be done.
    private mutating func goOnReloading(_ now: Int64) {
        guard phase == .running, wasReady else { return }
        if reloadSeat == nil, reloadAgain, canReload(0) {
            reloadAgain = false
            reloadSeat = 0
            generation = max(generation + 1, wantedGeneration)
        } else if let seat = reloadSeat, seats[seat].isReload || seats[seat].proving != nil {
            return
        }
        guard let seat = reloadSeat, canReload(seat) else { return }
        seats[seat].isReload = true
        seats[seat].restartAt = nil
        spawn(seat, now)
    }

    private func canReload(_ seat: Int) -> Bool {
        seats[seat].coming == nil && seats[seat].proving == nil && lives.count < limits.livesMax
    }

    /// The new router of a seat has shown that it works: the old one may go.
    mutating func proved(_ seat: Int) {
        seats[seat].proving = nil
        if let standby = seats[seat].standby, let position = position(of: standby) { lives[position].phase = .retiring }
        seats[seat].standby = nil
        guard reloadSeat == seat else { return }
        if seat + 1 < seats.count {
            reloadSeat = seat + 1
        } else {
            reloadSeat = nil
            actions.append(.reloaded(generation: generation))
        }
    }

    private mutating func reloadFailed(_ end: RouterEnd) {
        reloadSeat = nil
        actions.append(.reloadFailed(end))
    }

    /// Nobody will ask any more: when the last open question is over the routers leave, and then comes `drained`.
    mutating func drain(now: Int64) {
        switch phase {
        case .idle, .running: phase = .draining
        case .draining, .leaving, .ended: return
        }
        settle(now)
    }

    // MARK: What happened to a router

    /// It answered `hello` with something we can use.
    mutating func greeted(_ router: RouterID, _ abilities: RouterAbilities, now: Int64) {
        guard let position = position(of: router), case .starting(_, closed: false) = lives[position].phase else {
            return
        }
        var abilities = abilities
        abilities.maxInFlight = max(1, min(abilities.maxInFlight, limits.inFlightMax, limits.questionsMax))
        lives[position].abilities = abilities
        lives[position].index = QuestionIndex(capacity: abilities.maxInFlight)
        lives[position].heard(now)
        lives[position].phase = .deciding
        let seat = lives[position].seat
        let old = seats[seat].holder
        seats[seat].holder = router
        seats[seat].coming = nil
        nobodySince = nil
        actions.append(.note(.greeted(router, maxInFlight: abilities.maxInFlight)))
        if !wasReady {
            wasReady = true
            actions.append(.ready)
        }
        if let old, let position = self.position(of: old) {
            lives[position].phase = .standingBy
            seats[seat].standby = old
        }
        if seats[seat].isReload {
            seats[seat].isReload = false
            seats[seat].proving = RouterSeat.Proving(
                until: now &+ limits.provingMilliseconds, latest: now &+ limits.provingMaxMilliseconds)
        }
        settle(now)
    }

    /// It ended, or has to. The worker reports what it has read from it first, and after this reads no more from it.
    mutating func died(_ router: RouterID, _ end: RouterEnd, now: Int64) {
        guard let position = position(of: router) else { return }
        switch lives[position].phase {
        case .starting(let deadline, _) where end == .closed && lives[position].kind == .process:
            let soon = now &+ limits.exitStatusTimeoutMilliseconds
            lives[position].phase = .starting(deadline: min(deadline, soon), closed: true)
        case .starting: failStart(router, end, now)
        case .deciding, .standingBy, .retiring: lose(router, end, now)
        case .leaving:
            guard end.processIsGone || lives[position].kind == .unix else { return }
            actions.append(.note(.left(router, end)))
            release(router)
        }
        settle(now)
    }

    // MARK: Time

    mutating func advanceLife(_ router: RouterID, _ now: Int64) {
        guard let position = position(of: router) else { return }
        switch lives[position].phase {
        case .starting(let deadline, let closed):
            guard deadline <= now else { return }
            failStart(router, closed ? .closed : .noGreeting(limits.helloTimeoutMilliseconds), now)
        case .deciding, .standingBy, .retiring:
            if let silence = expireQuestions(position, now) { lose(router, .wedged(silence), now) }
        case .leaving(let departure, let deadline):
            guard deadline <= now else { return }
            switch departure {
            case .told where lives[position].kind == .unix:
                release(router)
                return
            case .told: sendAway(position, .terminate, now)
            case .terminated: sendAway(position, .kill, now)
            case .killed:
                actions.append(.note(.survivedKill(router)))
                release(router)
                return
            }
            actions.append(.note(.tookTooLong(router, departure == .told ? .terminate : .kill)))
        }
    }

    /// Ends the questions whose router took too long. For how long it has been silent, if it is the router that is at fault;
    /// then its questions are not over. It is when it has written nothing since one of them was put to it, or when two or
    /// more have waited most of their time in silence (a script that takes one line after the other is stuck at the first of
    /// many), or when it has read nothing for as long.
    private mutating func expireQuestions(_ position: Int, _ now: Int64) -> Int64? {
        let timeout = limits.routerTimeoutMilliseconds
        if let blocked = lives[position].blocked, blocked.deadline <= now {
            if blocked.heardBefore == lives[position].heard { return timeout }
            lives[position].blocked = RouterLife.Blocked(
                deadline: now &+ timeout, heardBefore: lives[position].heard)
        }
        let silence = now &- lives[position].heardAt
        let list = lives[position].asked
        while let slot = questions.first(of: list), questions[slot].deadline <= now {
            if questions[slot].heardBefore == lives[position].heard { return timeout }
            if silence >= timeout / 4 * 3, let second = questions.second(of: list),
                now &- questions[second].askedAt >= timeout / 4 * 3
            {
                return silence
            }
            // It may be stuck since it wrote last: then one that was put to it after that will tell, and this one is
            // asked again with it. Once, so that nobody waits longer than twice.
            if silence >= timeout / 10, questions[slot].phase == .asked, now &- questions[slot].askedAt < 2 &* timeout,
                let last = questions.last(of: list), last != slot, questions[last].heardBefore == lives[position].heard
            {
                questions[slot].deadline = questions[last].deadline
                questions.unlink(slot)
                questions.append(slot, to: list)
                continue
            }
            expire(slot, position, now)
        }
        while let slot = questions.first(of: lives[position].extended), questions[slot].deadline <= now {
            expire(slot, position, now)
        }
        return nil
    }

    private mutating func expire(_ slot: Int32, _ position: Int, _ now: Int64) {
        let isWanted = questions[slot].phase == .asked
        let (id, asker) = (questions[slot].id, questions[slot].asker)
        unlinkAsked(slot, position)
        guard isWanted else { return questions.free(slot) }
        if lives[position].abilities.wantsCancel { actions.append(.cancel(lives[position].id, id: id, asker)) }
        fail(slot, .deadline)
    }

    // MARK: Replacing

    /// A router that decided, or still had something to finish, is gone: its open questions go to the next one.
    private mutating func lose(_ router: RouterID, _ end: RouterEnd, _ now: Int64) {
        guard let position = position(of: router) else { return }
        let seat = lives[position].seat
        // The fault is a suspect's then, not the router's, if routers answer at all.
        let inTrial = if case .trying(router, _, _, _) = turn { answers(now) } else { false }
        let (open, replayed) = suspect(position, end, now)
        counters.lost &+= 1
        if seats[seat].standby == router { seats[seat].standby = nil }
        if seats[seat].holder == router, seats[seat].proving != nil {
            let standby = seats[seat].standby
            actions.append(.note(.undone(router, end, old: standby, open: open, replayed: replayed)))
            seats[seat].proving = nil
            seats[seat].standby = nil
            seats[seat].holder = standby
            if let standby, let position = self.position(of: standby) { lives[position].phase = .deciding }
            if standby == nil { seats[seat].failures += 1 }
            reloadFailed(end)
        } else {
            actions.append(.note(.lost(router, end, open: open, replayed: replayed)))
            if seats[seat].holder == router {
                seats[seat].holder = nil
                seats[seat].failures += 1
            }
        }
        if anyHolder == nil, nobodySince == nil { nobodySince = now }
        finish(router, end, now)
        if let pause = replace(seat, inTrial: inTrial, now) {
            actions.append(.note(.restartLater(milliseconds: pause)))
        }
    }

    /// Routers have answered questions of late.
    private func answers(_ now: Int64) -> Bool {
        answeredAt.map { now &- $0 < limits.answersMilliseconds } ?? false
    }

    private mutating func failStart(_ router: RouterID, _ end: RouterEnd, _ now: Int64) {
        guard let position = position(of: router) else { return }
        let seat = lives[position].seat
        seats[seat].coming = nil
        seats[seat].failures += 1
        finish(router, end, now)
        if !wasReady, phase == .running {
            // Whoever is told of this says why: no note.
            phase = .ended
            reloadAgain = false
            for seat in seats.indices { seats[seat].restartAt = nil }
            for position in lives.indices.reversed() {
                if case .starting = lives[position].phase { sendAway(position, .terminate, now) }
            }
            failAllWaiting()
            actions.append(.bootFailed(end))
            return
        }
        let pause = replace(seat, now)
        // Somebody else's router may be away for long: the log need not say so at every try.
        let failures = seats[seat].failures
        if limits.kind == .process || failures & (failures - 1) == 0 {
            actions.append(.note(.failedToStart(router, end, next: pause)))
        }
        if seats[seat].isReload {
            seats[seat].isReload = false
            reloadFailed(end)
        }
    }

    /// Sees to it that a router comes, unless there is one, one is coming, or nobody needs one. The pause before that, for the log,
    /// if it is one of a process.
    private mutating func replace(_ seat: Int, inTrial: Bool = false, _ now: Int64) -> Int64? {
        guard seats[seat].holder == nil, seats[seat].coming == nil,
            phase == .running || (phase == .draining && openCount > 0)
        else { return nil }
        // The first at once, the second after the shortest delay, and each further one after twice the time.
        let failures = seats[seat].failures
        var delay = failures < 2 ? 0 : limits.restartDelayMinMilliseconds
        for _ in 0..<min(max(0, failures - 2), 32) where delay < limits.restartDelayMaxMilliseconds { delay &*= 2 }
        delay = min(delay, inTrial ? limits.restartDelayMinMilliseconds : limits.restartDelayMaxMilliseconds)
        seats[seat].restartAt = now &+ delay
        return delay > 0 && limits.kind == .process ? delay : nil
    }

    /// Starts the routers whose time has come, if there is a place for them. If there is none, those that are leaving are hurried.
    mutating func startDueRouters(_ now: Int64) {
        for seat in seats.indices {
            guard let restartAt = seats[seat].restartAt, restartAt <= now else { continue }
            guard lives.count < limits.livesMax else {
                for position in lives.indices.reversed() {
                    guard case .leaving(let departure, _) = lives[position].phase, departure != .killed else {
                        continue
                    }
                    sendAway(position, .kill, now)
                }
                return
            }
            seats[seat].restartAt = nil
            spawn(seat, now)
        }
    }

    private mutating func spawn(_ seat: Int, _ now: Int64) {
        lastRouter &+= 1
        let router = RouterID(number: lastRouter)
        lives.append(
            RouterLife(
                id: router, kind: limits.kind, generation: generation, seat: seat,
                phase: .starting(deadline: now &+ limits.helloTimeoutMilliseconds, closed: false),
                heardAt: now, asked: questions.makeList(), extended: questions.makeList()))
        seats[seat].coming = router
        counters.spawned &+= 1
        actions.append(.spawn(router, limits.kind, generation: generation))
        if limits.kind == .process { actions.append(.note(.started(router, generation: generation))) }
    }

    // MARK: Leaving

    /// Lets a router without questions go: at once when its process is gone, else the shorter way or the longer one.
    private mutating func finish(_ router: RouterID, _ end: RouterEnd, _ now: Int64) {
        guard let position = position(of: router) else { return }
        if end.processIsGone || lives[position].kind == .unix {
            release(router)
        } else if case .wedged = end {
            // It may be stopped, and then TERM would wait with everything else.
            sendAway(position, .kill, now)
        } else {
            sendAway(position, .terminate, now)
        }
    }

    private mutating func sendAway(_ position: Int, _ step: RouterAction.Step, _ now: Int64) {
        guard lives[position].kind == .process else { return release(lives[position].id) }
        lives[position].blocked = nil
        switch step {
        case .terminate:
            actions.append(.terminate(lives[position].id))
            lives[position].phase = .leaving(.terminated, deadline: now &+ limits.terminateTimeoutMilliseconds)
        case .kill:
            actions.append(.kill(lives[position].id))
            lives[position].phase = .leaving(.killed, deadline: now &+ limits.killTimeoutMilliseconds)
        }
    }

    /// A retired router with nothing left to do is told to go; questions nobody wants any more do not keep it.
    private mutating func dismiss(_ position: Int, _ now: Int64) {
        for list in [lives[position].asked, lives[position].extended] {
            while let slot = questions.first(of: list) {
                unlinkAsked(slot, position)
                questions.free(slot)
            }
        }
        lives[position].blocked = nil
        lives[position].phase = .leaving(.told, deadline: now &+ limits.shutdownTimeoutMilliseconds)
        actions.append(.shutdown(lives[position].id, told: lives[position].abilities.wantsShutdown))
    }

    private mutating func release(_ router: RouterID) {
        guard let position = position(of: router) else { return }
        questions.free(lives[position].asked)
        questions.free(lives[position].extended)
        lives.remove(at: position)
        actions.append(.release(router))
    }

    /// Does what has become possible: fails those who wait in vain, lets retired routers go, starts those that are due, goes on reloading, ends a drain.
    mutating func settle(_ now: Int64) {
        if isDeserted(now) { failAllWaiting() }
        if phase == .draining, openCount == 0 { leave(now) }
        for seat in seats.indices {
            guard let proving = seats[seat].proving, let holder = seats[seat].holder,
                let position = position(of: holder)
            else { continue }
            if now >= (lives[position].isNeeded ? proving.latest : proving.until) { proved(seat) }
        }
        for position in lives.indices where lives[position].phase == .retiring && !lives[position].isNeeded {
            // Rewriting goes on for as long as its connections do, unless all are gone and something was forgotten.
            if lives[position].streams == 0 || phase == .leaving { dismiss(position, now) }
        }
        startDueRouters(now)
        if reloadAgain || reloadSeat != nil { goOnReloading(now) }
        if phase == .leaving, lives.isEmpty {
            phase = .ended
            actions.append(.drained)
        }
    }

    /// No question is open and none will be: every router may go.
    private mutating func leave(_ now: Int64) {
        phase = .leaving
        reloadAgain = false
        reloadSeat = nil
        for seat in seats.indices {
            if let coming = seats[seat].coming, let position = position(of: coming) {
                sendAway(position, .terminate, now)
            }
            for router in [seats[seat].holder, seats[seat].standby] {
                if let router, let position = position(of: router) { lives[position].phase = .retiring }
            }
            seats[seat] = RouterSeat()
        }
    }

    func position(of router: RouterID) -> Int? {
        lives.firstIndex { $0.id == router }
    }
}
