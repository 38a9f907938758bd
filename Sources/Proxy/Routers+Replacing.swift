// The lives of routers: started, greeted, deciding, retired, replaced; which one decides, and when the next one is tried.
//
//     starting → deciding → retiring → leaving → (release)
//         │          └──────────┴─────────↑
//         └────────── failed ─────────────┘

/// One router from its spawn to its release.
struct RouterLife {
    enum Phase: Equatable {
        /// Spawned; `hello` is not answered. `closed` once its socket is: then only its exit status is waited for.
        case starting(deadline: Int64, closed: Bool)
        /// New questions go to it.
        case deciding
        /// Replaced by a newer generation: it finishes what it has.
        case retiring
        /// It has nothing left to do here, or is not trusted any more.
        case leaving(Departure, deadline: Int64)

        var deadline: Int64? {
            switch self {
            case .starting(let deadline, _), .leaving(_, let deadline): deadline
            case .deciding, .retiring: nil
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
    var phase: Phase
    var abilities = RouterAbilities()
    var nextQuestionID = firstQuestionID
    /// Rises whenever something came from it.
    var heard: UInt64 = 0
    var blocked: Blocked?
    /// Questions it has not answered, the abandoned ones among them; answers that are being carried out.
    var inFlight = 0
    var abandoned = 0
    var unapplied = 0
    /// Its questions by id; in the order in which their time ends, those it asked more time for apart.
    var index = QuestionIndex(capacity: 0)
    let asked: QuestionList
    let extended: QuestionList

    var hasRoom: Bool { inFlight < abilities.maxInFlight && blocked == nil && phase == .deciding }
    /// Something of it is still wanted.
    var isNeeded: Bool { inFlight > abandoned || unapplied > 0 }
}

/// The place of the router that decides: who has it, who is to have it, and when the next one is tried. More places
/// (several routers, a shadow, a canary) are more of these.
struct RouterSeat {
    /// Questions go to it.
    var holder: RouterID?
    /// Started, not greeted yet.
    var coming: RouterID?
    /// The coming one is the new generation of a reload.
    var isReload = false
    /// Another reload was asked for before this one was over: the files may have changed since.
    var reloadAgain = false
    /// When to start the next one, if none is coming.
    var restartAt: Int64?
    /// Deaths and failed starts since the last answer.
    var failures = 0
}

extension Routers {
    // MARK: What the worker asks for

    /// Starts the first router.
    mutating func start(now: Int64) {
        guard phase == .idle else { return }
        phase = .running
        seat.restartAt = now
        startDueRouter(now)
    }

    /// HUP: starts a new generation, which takes over when it has answered `hello`. Answered by `reloaded` or `reloadFailed`;
    /// reloads asked for while one is under way are answered together by the next one. `generation` is the new one's
    /// number, if it is higher than ours; without it we count on.
    mutating func reload(generation wanted: Int? = nil, now: Int64) {
        guard phase == .running else { return }
        if let wanted { wantedGeneration = wanted }
        guard seat.coming == nil, lives.count < limits.livesMax, wasReady else {
            seat.reloadAgain = true
            return
        }
        seat.reloadAgain = false
        seat.isReload = true
        seat.restartAt = nil
        generation = max(generation + 1, wantedGeneration)
        spawn(now)
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
        lives[position].heard &+= 1
        lives[position].phase = .deciding
        let old = seat.holder
        seat.holder = router
        seat.coming = nil
        actions.append(.note(.greeted(router, maxInFlight: abilities.maxInFlight)))
        if !wasReady {
            wasReady = true
            actions.append(.ready)
        }
        if seat.isReload {
            seat.isReload = false
            actions.append(.reloaded(generation: lives[position].generation))
        }
        if let old, let position = self.position(of: old) { lives[position].phase = .retiring }
        settle(now)
    }

    /// It ended, or has to. The worker reports what it has read from it first, and after this reads no more from it.
    mutating func died(_ router: RouterID, _ end: RouterEnd, now: Int64) {
        guard let position = position(of: router) else { return }
        switch lives[position].phase {
        case .starting(let deadline, _) where end == .closed:
            let soon = now &+ limits.exitStatusTimeoutMilliseconds
            lives[position].phase = .starting(deadline: min(deadline, soon), closed: true)
        case .starting: failStart(router, end, now)
        case .deciding, .retiring: lose(router, end, now)
        case .leaving:
            guard end.processIsGone else { return }
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
        case .deciding, .retiring:
            if expireQuestions(position, now) {
                lose(router, .wedged(limits.routerTimeoutMilliseconds), now)
            }
        case .leaving(let departure, let deadline):
            guard deadline <= now else { return }
            switch departure {
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

    /// Ends the questions whose router took too long. True: it has been silent since one of them was put to it, or has read
    /// nothing for as long. Then it is the router that is at fault, and its questions are not over.
    private mutating func expireQuestions(_ position: Int, _ now: Int64) -> Bool {
        if let blocked = lives[position].blocked, blocked.deadline <= now {
            if blocked.heardBefore == lives[position].heard { return true }
            lives[position].blocked = RouterLife.Blocked(
                deadline: now &+ limits.routerTimeoutMilliseconds, heardBefore: lives[position].heard)
        }
        while let slot = questions.first(of: lives[position].asked), questions[slot].deadline <= now {
            if questions[slot].heardBefore == lives[position].heard { return true }
            expire(slot, position, now)
        }
        while let slot = questions.first(of: lives[position].extended), questions[slot].deadline <= now {
            expire(slot, position, now)
        }
        return false
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
        let open = lives[position].inFlight - lives[position].abandoned
        var replayed = 0
        for list in [lives[position].asked, lives[position].extended] {
            while let slot = questions.first(of: list) {
                let isWanted = questions[slot].phase == .asked
                unlinkAsked(slot, position)
                if !isWanted {
                    questions.free(slot)
                } else if putAgain(slot, now) {
                    replayed += 1
                }
            }
        }
        counters.lost &+= 1
        actions.append(.note(.lost(router, end, open: open, replayed: replayed)))
        if seat.holder == router {
            seat.holder = nil
            seat.failures += 1
        }
        finish(router, end, now)
        replace(now)
    }

    private mutating func failStart(_ router: RouterID, _ end: RouterEnd, _ now: Int64) {
        seat.coming = nil
        seat.failures += 1
        finish(router, end, now)
        if !wasReady, phase == .running {
            // Whoever is told of this says why: no note.
            phase = .ended
            seat.reloadAgain = false
            while let slot = questions.first(of: waiting) { failWaiting(slot) }
            actions.append(.bootFailed(end))
            return
        }
        actions.append(.note(.failedToStart(router, end)))
        if seat.isReload {
            seat.isReload = false
            actions.append(.reloadFailed(end))
        }
        replace(now)
    }

    /// Sees to it that a router comes, unless there is one, one is coming, or nobody needs one.
    private mutating func replace(_ now: Int64) {
        guard seat.holder == nil, seat.coming == nil, phase == .running || (phase == .draining && openCount > 0)
        else { return }
        // The first at once, the second after the shortest delay, and each further one after twice the time.
        var delay = seat.failures < 2 ? 0 : limits.restartDelayMinMilliseconds
        for _ in 0..<min(max(0, seat.failures - 2), 32) where delay < limits.restartDelayMaxMilliseconds { delay &*= 2 }
        delay = min(delay, limits.restartDelayMaxMilliseconds)
        if delay > 0 { actions.append(.note(.restartLater(milliseconds: delay))) }
        seat.restartAt = now &+ delay
    }

    /// Starts the router whose time has come, if there is a place for it. If there is none, those that are leaving are hurried.
    mutating func startDueRouter(_ now: Int64) {
        guard let restartAt = seat.restartAt, restartAt <= now else { return }
        guard lives.count < limits.livesMax else {
            for position in lives.indices {
                guard case .leaving(let departure, _) = lives[position].phase, departure != .killed else { continue }
                sendAway(position, .kill, now)
            }
            return
        }
        seat.restartAt = nil
        spawn(now)
    }

    private mutating func spawn(_ now: Int64) {
        lastRouter &+= 1
        let router = RouterID(number: lastRouter)
        lives.append(
            RouterLife(
                id: router, kind: .process, generation: generation,
                phase: .starting(deadline: now &+ limits.helloTimeoutMilliseconds, closed: false),
                asked: questions.makeList(), extended: questions.makeList()))
        seat.coming = router
        counters.spawned &+= 1
        actions.append(.spawn(router, .process, generation: generation))
        actions.append(.note(.started(router, generation: generation)))
    }

    // MARK: Leaving

    /// Lets a router without questions go: at once when its process is gone, else the shorter way or the longer one.
    private mutating func finish(_ router: RouterID, _ end: RouterEnd, _ now: Int64) {
        guard let position = position(of: router) else { return }
        if end.processIsGone {
            release(router)
        } else if case .wedged = end {
            // It may be stopped, and then TERM would wait with everything else.
            sendAway(position, .kill, now)
        } else {
            sendAway(position, .terminate, now)
        }
    }

    private mutating func sendAway(_ position: Int, _ step: RouterAction.Step, _ now: Int64) {
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

    /// Does what has become possible: lets retired routers go, starts the one that is due, reloads once more, ends a drain.
    mutating func settle(_ now: Int64) {
        if phase == .draining, openCount == 0 {
            phase = .leaving
            seat.restartAt = nil
            seat.reloadAgain = false
            if let coming = seat.coming, let position = position(of: coming) {
                sendAway(position, .terminate, now)
                seat.coming = nil
            }
            if let holder = seat.holder, let position = position(of: holder) {
                lives[position].phase = .retiring
                seat.holder = nil
            }
        }
        for position in lives.indices where lives[position].phase == .retiring && !lives[position].isNeeded {
            dismiss(position, now)
        }
        startDueRouter(now)
        if seat.reloadAgain { reload(now: now) }
        if phase == .leaving, lives.isEmpty {
            phase = .ended
            actions.append(.drained)
        }
    }

    func position(of router: RouterID) -> Int? {
        lives.firstIndex { $0.id == router }
    }
}
