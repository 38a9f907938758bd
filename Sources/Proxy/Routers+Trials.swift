// Finding the question that kills routers without failing those that were merely open beside it.
//
// Every question that was open at a death is a suspect from then on. Suspects are asked again in trials: a few at a time
// at a router that has nothing else, and whoever was open at two deaths is tried alone. An innocent one is answered there.
// The guilty one takes routers down again, until it has been alone at it twice: then it fails, and nobody else does.
//
// Between two trials the others have their turn, at least as long as the trial took, so nobody starves. The times in here
// are bounds for slow routers: with a quick one a trial is over in a millisecond.

/// Whose turn it is. There is one trial at a time, at one router; others, if there are any, go on beside it.
enum Turn: Equatable {
    /// Questions that are no suspects; until then at least, if it is given.
    case others(until: Int64?)
    /// Nobody is put to this router any more until it has answered what it has; or until then, which is nil once it is past.
    case clearing(RouterID, until: Int64?)
    /// Suspects only, so many more in this trial; from and until.
    case trying(RouterID, more: Int, from: Int64, until: Int64)

    /// The router that takes no others.
    var router: RouterID? {
        switch self {
        case .others: nil
        case .clearing(let router, _), .trying(let router, _, _, _): router
        }
    }
}

extension Routers {
    /// The question to be put next, and the place of its router.
    mutating func nextToPut(_ now: Int64) -> (slot: Int32, position: Int)? {
        takeTurns(now)
        if case .trying(let router, let more, let from, let until) = turn, more > 0,
            let position = position(of: router),
            lives[position].hasRoom, let slot = questions.first(of: suspects)
        {
            turn = .trying(router, more: isStrong(slot) ? 0 : more - 1, from: from, until: until)
            questions[slot].trial = trial
            triedOpen += 1
            return (slot, position)
        }
        guard let slot = questions.first(of: waiting), let position = leastBusy(except: turn.router) else { return nil }
        othersSent += 1
        return (slot, position)
    }

    /// The deciding router with the fewest open questions, among those that have room.
    func leastBusy(except reserved: RouterID?) -> Int? {
        var best: Int?
        for seat in seats {
            guard let holder = seat.holder, holder != reserved, let position = position(of: holder),
                lives[position].hasRoom
            else { continue }
            if let other = best, lives[other].inFlight <= lives[position].inFlight { continue }
            best = position
        }
        return best
    }

    /// Goes on to the turn that is due.
    private mutating func takeTurns(_ now: Int64) {
        if case .others(nil) = turn, questions.first(of: suspects) == nil { return }
        while takeTurn(now) {}
    }

    /// True when it has become another's turn.
    private mutating func takeTurn(_ now: Int64) -> Bool {
        let suspect = questions.first(of: suspects)
        switch turn {
        case .others(let until):
            if let until, until > now { return false }
            turn = .others(until: nil)
            guard let suspect, questions.first(of: waiting) == nil || othersSent >= limits.othersPerTurn,
                let position = leastBusy(except: nil)
            else { return false }
            turn = .clearing(lives[position].id, until: now &+ trialTime(suspect))
            return true
        case .clearing(let router, let until):
            guard let suspect, let position = position(of: router), lives[position].phase == .deciding else {
                othersTurn(until: nil)
                return true
            }
            guard lives[position].hasRoom, lives[position].inFlight == 0 || (until ?? now) <= now else {
                if let until, until <= now { turn = .clearing(router, until: nil) }
                return false
            }
            let count = isStrong(suspect) ? 1 : limits.trialMax
            trial &+= 1
            triedOpen = 0
            turn = .trying(router, more: count, from: now, until: now &+ trialTime(suspect))
            return true
        case .trying(let router, let more, let from, let until):
            let isThere = position(of: router).map { lives[$0].phase == .deciding } ?? false
            guard isThere, until > now else {
                othersTurn(until: isThere ? now &+ (now &- from) : nil)
                return true
            }
            if more > 0, let suspect, triedOpen == 0 || !isStrong(suspect) { return false }
            // Nobody else is tried beside those who are.
            if more > 0 { turn = .trying(router, more: 0, from: from, until: until) }
            guard triedOpen == 0 else { return false }
            othersTurn(until: now &+ (now &- from))
            return true
        }
    }

    private mutating func othersTurn(until: Int64?) {
        turn = .others(until: until)
        othersSent = 0
    }

    /// It was open at two deaths or more: it is tried alone.
    private func isStrong(_ slot: Int32) -> Bool { questions[slot].replay > 1 }

    /// For how long a router is kept for this suspect alone: more with each death it has seen, for it may be slow to kill.
    private func trialTime(_ slot: Int32) -> Int64 {
        limits.trialMilliseconds &<< Int64(max(0, min(Int(questions[slot].replay) - 1, 3)))
    }

    /// At how many deaths a question has to be alone. More when it may not be its doing: a signal from outside, or a router
    /// behind a socket, which somebody restarts or which dies of what another worker asked.
    private func deathsOfPoison(_ end: RouterEnd) -> UInt8 {
        if limits.kind == .unix { return 4 }
        return end.mayComeFromOutside ? 3 : 2
    }

    /// When the turn changes if nothing else happens.
    var turnEnds: Int64? {
        switch turn {
        case .others(let until): questions.first(of: suspects) == nil ? nil : until
        case .clearing(_, let until): until
        case .trying(_, _, _, let until): until
        }
    }

    /// A question has left its router.
    mutating func leaveTrial(_ slot: Int32) {
        guard questions[slot].trial == trial, trial > 0 else { return }
        questions[slot].trial = 0
        triedOpen -= 1
    }

    /// Puts a question that is in no list, and whose router died, to the next router.
    mutating func putAgain(_ slot: Int32, _ now: Int64) {
        guard limits.replays else { return fail(slot, .noRouter) }
        if questions[slot].replay < .max { questions[slot].replay += 1 }
        counters.replayed &+= 1
        enqueue(slot, in: suspects, now)
    }

    /// The open questions of a router that is gone become suspects; the one that was alone there for the second time fails.
    /// Returns how many were open, and how many are asked again.
    mutating func suspect(_ position: Int, _ end: RouterEnd, _ now: Int64) -> (open: Int, replayed: Int) {
        let isAlone = lives[position].inFlight == 1
        var (open, replayed) = (0, 0)
        for list in [lives[position].asked, lives[position].extended] {
            while let slot = questions.first(of: list) {
                let isWanted = questions[slot].phase == .asked
                unlinkAsked(slot, position)
                guard isWanted else {
                    questions.free(slot)
                    continue
                }
                open += 1
                if isAlone { questions[slot].alone += 1 }
                if questions[slot].alone >= deathsOfPoison(end) {
                    counters.poisonous &+= 1
                    fail(slot, .poison)
                } else {
                    putAgain(slot, now)
                    if limits.replays { replayed += 1 }
                }
            }
        }
        return (open, replayed)
    }
}
