print("tproxy")
